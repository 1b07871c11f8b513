//! What is logged and how.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::{LogFormat, Logging, nearest};
use crate::label;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Starts logging to standard error. Standard output belongs to the ready line.
///
/// # Errors
/// When the level is not one; [`crate::config::load`] has told the operator before.
pub fn start(logging: &Logging) -> Result<(), String> {
    let filter = parse_level(&logging.level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A second start in the same process, as in tests, keeps the first one's settings.
    let _ = match logging.format {
        LogFormat::Text => builder.event_format(Text).try_init(),
        LogFormat::Json => builder.event_format(Json).try_init(),
    };
    Ok(())
}

/// A line for people: time, level, connection, place, what happened.
struct Text;

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        SystemTime.format_time(&mut out)?;
        write!(out, " {:>5} ", event.metadata().level())?;
        if let Some(label) = label::current() {
            write!(out, "{label}: ")?;
        }
        write!(out, "{}: ", event.metadata().target())?;
        context.format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

/// The same for programs: an object on a line.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Fields(Map::new());
        fields.put("timestamp", time);
        fields.put("level", event.metadata().level().to_string());
        event.record(&mut fields);
        if let Some(label) = label::current() {
            fields.put("connection", label.id);
            fields.put("peer", label.peer.to_string());
        }
        fields.put("target", event.metadata().target());
        writeln!(out, "{}", Value::Object(fields.0))
    }
}

/// An event's fields by name.
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }
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
