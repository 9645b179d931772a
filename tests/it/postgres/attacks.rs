//! What a malicious login can reach: a member of `delta_loader`, a member of `delta_rollback`, and an owner of schemas that were there before.
//! Each attack fails, and succeeds as soon as its defense is taken away: none of them is a blank.

mod arguments;
mod design;
mod functions;
mod key_maps;
mod operators;
mod owners;
mod sessions;
mod world;
