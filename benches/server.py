"""A PostgreSQL server for the benches: its own folder, a free port, fsync on, no autovacuum in between."""

import contextlib, os, pathlib, re, shutil, socket, subprocess


def free_port():
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return asked.getsockname()[1]


class Server:
    def __init__(self, folder):
        self.bin = pathlib.Path(subprocess.check_output(["pg_config", "--bindir"], text=True).strip()
                                if shutil.which("pg_config") else sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[-1])
        self.version = re.search(r"\d+[.\d]*", subprocess.check_output([self.bin / "postgres", "--version"], text=True)).group()
        self.folder, self.port = folder, free_port()
        self.as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self.as_user:
            shutil.chown(folder, "postgres")
        self.do("initdb", "-A", "trust", "-U", "postgres", "-D", f"{folder}/data")
        options = (f"-p {self.port} -k {folder} -c listen_addresses=127.0.0.1 -c shared_buffers=1GB -c max_wal_size=16GB -c min_wal_size=8GB "
                   "-c checkpoint_timeout=1h -c maintenance_work_mem=512MB -c autovacuum=off")
        self.do("pg_ctl", "-D", f"{folder}/data", "-l", f"{folder}/log", "-w", "-o", options, "start")

    def do(self, program, *arguments):
        subprocess.run([*self.as_user, self.bin / program, *arguments], check=True, stdout=subprocess.DEVNULL, cwd="/")

    def sql(self, database, sql, **kwargs):
        command = ["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-h", str(self.folder), "-p", str(self.port), "-U", "postgres", database]
        return subprocess.run(command, input=sql, check=True, text=True, stdout=subprocess.PIPE, **kwargs).stdout

    def copy(self, source, to):
        """A database as a copy of another, of its files where the server can, which writes no WAL, and all of it on disk."""
        strategy = "STRATEGY FILE_COPY" if int(self.version.split(".")[0]) >= 15 else ""
        self.sql("postgres", f"SET client_min_messages = warning; DROP DATABASE IF EXISTS {to} WITH (FORCE); "
                             f"CREATE DATABASE {to} TEMPLATE {source} {strategy}; CHECKPOINT")

    def restart(self):
        """Starts anew, at other addresses: how long PostgreSQL 15 takes to check foreign keys of copied rows depends on them by up to a sixth."""
        self.do("pg_ctl", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log", "-w", "-m", "fast", "restart")

    def url(self, database):
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def stop(self):
        self.do("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "stop")


@contextlib.contextmanager
def started(folder):
    """A server in a folder below `folder`, stopped at the end."""
    place = pathlib.Path(folder, "server")
    place.mkdir()
    server = Server(str(place))
    try:
        yield server
    finally:
        server.stop()
