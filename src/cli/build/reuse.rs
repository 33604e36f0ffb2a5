//! The flags of `build` that say what of earlier builds does not count.

use std::time::Duration;

use outcrop::error::{Error, Result};
use outcrop::verb::build::ReuseOptions;

use super::super::image_prune::duration;

#[derive(clap::Args)]
pub(super) struct ReuseArgs {
    /// Run the steps of these stages, by name or number, whatever the cache holds
    #[arg(long, value_name = "STAGE[,STAGE]", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Run steps again that last ran longer ago, as in 24h or 1h30m
    #[arg(long, value_name = "DURATION")]
    cache_ttl: Option<String>,
}

impl ReuseArgs {
    pub(super) fn options(&self) -> Result<ReuseOptions> {
        let ttl = |text: &String| {
            let nanoseconds = duration(text).and_then(|nanoseconds| u64::try_from(nanoseconds).ok());
            nanoseconds.map(Duration::from_nanos).ok_or_else(|| {
                Error::invalid(format!("`{text}` in --cache-ttl is no duration"))
                    .hint("write hours, minutes and seconds, as in 24h or 1h30m")
            })
        };
        Ok(ReuseOptions {
            no_cache_filter: self.no_cache_filter.clone(),
            cache_ttl: self.cache_ttl.as_ref().map(ttl).transpose()?,
        })
    }
}
