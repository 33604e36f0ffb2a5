//! Image configs: what is read and written is read the same, and written the same.

use outcrop::image::ImageConfig;

pub fn check(data: &[u8]) {
    let Ok(config) = ImageConfig::parse(data) else { return };
    let written = config.to_bytes();
    let again = ImageConfig::parse(&written).unwrap();
    assert_eq!(again, config);
    assert_eq!(again.to_bytes(), written);
}
