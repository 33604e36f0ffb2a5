//! context

pub mod ignore;
pub mod wildcard;
