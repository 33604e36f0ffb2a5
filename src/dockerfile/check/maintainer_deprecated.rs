//! MaintainerDeprecated: a label says it better.

use super::{Check, Look, Notes, Place};
use crate::dockerfile::statement::Statement;

pub(super) static CHECK: Check = Check {
    name: "MaintainerDeprecated",
    description: "MAINTAINER is deprecated; a label names the author of an image",
    experimental: false,
    look: Look::Statement(look),
};

fn look(statement: &Statement, notes: &mut Notes) {
    if statement.keyword == "MAINTAINER" {
        let message = "MAINTAINER is deprecated; write `LABEL org.opencontainers.image.authors=\"..\"`";
        notes.note(&CHECK, &Place::of(statement), message);
    }
}
