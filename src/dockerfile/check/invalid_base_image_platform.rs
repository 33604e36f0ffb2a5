//! InvalidBaseImagePlatform: a base image for another machine than the stage.

use super::{BaseSeen, Check, Look, Notes, Place};
use crate::image::Platform;

pub(super) static CHECK: Check = Check {
    name: "InvalidBaseImagePlatform",
    description: "The base image is for the platform that the stage is built for",
    experimental: false,
    look: Look::Base(look),
};

fn look(seen: &BaseSeen<'_>, notes: &mut Notes) {
    let is = Platform {
        os: seen.image.os.clone(),
        architecture: seen.image.architecture.clone(),
        variant: seen.image.variant.clone(),
    };
    if is.os != seen.wanted.os || is.architecture != seen.wanted.architecture {
        let message =
            format!("the base image `{}` is for {is}, and the stage for {}", seen.name, seen.wanted);
        notes.note(&CHECK, &Place::of(seen.statement), message);
    }
}
