//! Overlays and whole trees: the same change, the same bytes.
