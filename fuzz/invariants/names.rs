//! Names of images and platforms: what is read is written so that it is read again.

use outcrop::image::{Digest, Platform, Reference};

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        let written = reference.to_string();
        assert_eq!(written.parse::<Reference>().ok().as_ref(), Some(&reference), "{written}");
        let familiar = reference.familiar();
        assert_eq!(familiar.parse::<Reference>().ok().as_ref(), Some(&reference), "{familiar}");
    }
    if let Ok(platform) = text.parse::<Platform>() {
        let written = platform.to_string();
        assert_eq!(written.parse::<Platform>().ok(), Some(platform), "{written}");
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
    }
}
