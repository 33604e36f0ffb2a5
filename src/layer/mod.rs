//! A layer as a set of changes, as rows, and as a tar.

mod row;

pub use row::{Form, Kind, Row, RowSink};
