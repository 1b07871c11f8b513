//! What is logged and how.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::SystemTime;

use crate::config::{LogFormat, Logging, nearest};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Starts logging to standard error. Standard output belongs to the ready line.
///
/// # Errors
/// When the level is not one; [`crate::config::load`] has told the operator before.
pub fn start(logging: &Logging) -> Result<(), String> {
    let filter = parse_level(&logging.level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_timer(SystemTime);
    // A second start in the same process, as in tests, keeps the first one's settings.
    let _ = match logging.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    Ok(())
}

/// Reads a level such as `info` or `info,portolan::auth=debug`; the error is for the operator.
pub(crate) fn parse_level(text: &str) -> Result<EnvFilter, String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    for part in &parts {
        // The filter would take an unknown word for the name of a module and log everything of it.
        let level = part.rsplit_once('=').map_or(*part, |(_, level)| level);
        if !LEVELS.contains(&level) {
            let near = nearest(level, LEVELS.into_iter());
            let hint = near.map(|level| format!("; did you mean `{level}`?")).unwrap_or_default();
            return Err(format!("`{level}` is not a level ({}){hint}", LEVELS.join(", ")));
        }
    }
    EnvFilter::try_new(parts.join(",")).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        for good in ["info", "off", "warn,portolan::auth=debug", "info, portolan=trace"] {
            assert!(parse_level(good).is_ok(), "{good}");
        }
        for bad in ["", "verbose", "info,", "info,portolan=loud"] {
            assert!(parse_level(bad).is_err(), "{bad}");
        }
        let error = parse_level("inof").map(|_| ()).unwrap_err();
        assert!(error.ends_with("did you mean `info`?"), "{error}");
    }
}
