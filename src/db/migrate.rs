//! Versions of the databases. A version is never changed once a store may have it: steps lead from each to the next.

use rusqlite::Connection;

use super::transaction::run;
use crate::error::{Context as _, Error, Result};

pub(super) struct Schema {
    pub(super) file: &'static str,
    /// Marks the file as ours (sqlite.org/fileformat.html, "Application ID").
    pub(super) application: i32,
    /// `steps[n]` leads from version n to n + 1; the first makes everything.
    pub(super) steps: &'static [&'static str],
}

/// "OCri".
pub(super) const INDEX: Schema = Schema {
    file: "outcrop.db",
    application: 0x4f43_7269,
    steps: &[include_str!("index.sql"), include_str!("index_2.sql")],
};
/// "OCrf".
pub(super) const FILES: Schema =
    Schema { file: "files.db", application: 0x4f43_7266, steps: &[include_str!("files.sql")] };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Current,
    Older,
}

impl Schema {
    fn newest(&self) -> usize {
        self.steps.len()
    }
}

fn found(connection: &Connection, schema: &Schema) -> Result<usize> {
    let read = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i32>(0))
            .context(|| format!("reading the store's {}", schema.file))
    };
    if read("application_id")? != schema.application {
        return Err(Error::corrupt(format!("{} is not a database of outcrop", schema.file))
            .hint("`outcrop system check --rebuild-index` makes the store's databases again"));
    }
    usize::try_from(read("user_version")?)
        .map_err(|cause| Error::corrupt(format!("{} has no version", schema.file)).because(cause))
}

/// `Unsupported` where it is newer than this engine.
pub(super) fn version(connection: &Connection, schema: &Schema) -> Result<Version> {
    match found(connection, schema)? {
        version if version == schema.newest() => Ok(Version::Current),
        version if version < schema.newest() => Ok(Version::Older),
        version => Err(Error::unsupported(format!(
            "the store was made by a newer outcrop: its {} has version {version}, this one knows {}",
            schema.file,
            schema.newest()
        ))
        .hint("use that outcrop, or another store with --root")),
    }
}

/// Fills an empty database.
pub(super) fn create(connection: &Connection, schema: &Schema) -> Result<()> {
    advance(connection, schema, 0)?;
    connection
        .pragma_update(None, "application_id", schema.application)
        .context(|| format!("making the store's {}", schema.file))
}

/// All steps that are missing, or none.
pub(super) fn upgrade(connection: &Connection, schema: &Schema) -> Result<()> {
    run(connection, "BEGIN IMMEDIATE", |connection| {
        let from = found(connection, schema)?;
        advance(connection, schema, from)
    })
}

fn advance(connection: &Connection, schema: &Schema, from: usize) -> Result<()> {
    let making = || format!("bringing the store's {} to version {}", schema.file, schema.newest());
    for step in schema.steps.iter().skip(from) {
        connection.execute_batch(step).context(making)?;
    }
    let version = i32::try_from(schema.newest()).expect("few versions");
    connection.pragma_update(None, "user_version", version).context(making)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Schema = Schema { file: "x.db", application: 7, steps: &["create table a (x integer)"] };
    const NEW: Schema = Schema {
        file: "x.db",
        application: 7,
        steps: &["create table a (x integer)", "alter table a add column y text", "create table b (z)"],
    };

    #[test]
    fn an_older_database_is_brought_up_to_date() {
        let connection = Connection::open_in_memory().unwrap();
        create(&connection, &OLD).unwrap();
        connection.execute("insert into a values (1)", ()).unwrap();
        assert_eq!(version(&connection, &NEW).unwrap(), Version::Older);
        upgrade(&connection, &NEW).unwrap();
        assert_eq!(version(&connection, &NEW).unwrap(), Version::Current);
        upgrade(&connection, &NEW).unwrap();
        connection.execute("insert into a (x, y) select x + 1, 'y' from a", ()).unwrap();
        connection.execute("insert into b values (1)", ()).unwrap();
    }

    #[test]
    fn a_newer_database_is_refused() {
        let connection = Connection::open_in_memory().unwrap();
        create(&connection, &NEW).unwrap();
        let error = version(&connection, &OLD).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Unsupported);
        assert_eq!(
            error.message(),
            "the store was made by a newer outcrop: its x.db has version 3, this one knows 1"
        );
    }
}
