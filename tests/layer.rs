//! Layers as archives: out, in, and again, bit for bit.

mod dialects;
mod hostile;
mod kit;
mod overlay;
mod recipes;
mod trees;
