//! The program `pipeline`.

fn main() -> std::process::ExitCode {
    delta_pipeline::program()
}
