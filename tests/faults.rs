//! What goes wrong: killed processes, full disks, missing permission, broken stores, hostile archives, wrong input.

mod disk;
mod hostile;
mod input;
mod killed;
mod left;
mod refused;
mod store;
mod strays;
