//! What goes wrong: killed processes, full disks, missing permission, broken stores, hostile archives, wrong input.

mod disk;
mod hostile;
mod input;
mod killed;
mod left;
mod store;
mod strays;
