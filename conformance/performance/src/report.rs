//! What a run reports: one line of JSON on standard output, one for people on standard error.

use std::fmt::Write;

use crate::latency::Latency;

/// Figures by name, in the order they were added.
#[derive(Default)]
pub(crate) struct Report {
    fields: Vec<(String, String)>,
    failed: bool,
}

impl Report {
    /// Adds a text.
    pub(crate) fn text(&mut self, name: &str, value: &str) -> &mut Self {
        let mut quoted = String::from("\"");
        for c in value.chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                c if c < ' ' => quoted.push(' '),
                c => quoted.push(c),
            }
        }
        quoted.push('"');
        self.add(name, quoted)
    }

    /// Adds a count.
    pub(crate) fn count(&mut self, name: &str, value: impl Into<Option<u64>>) -> &mut Self {
        let shown = value.into().map_or("null".into(), |value| value.to_string());
        self.add(name, shown)
    }

    /// Adds a measured figure.
    pub(crate) fn figure(&mut self, name: &str, value: impl Into<Option<f64>>) -> &mut Self {
        let shown = match value.into().filter(|value| value.is_finite()) {
            None => "null".into(),
            Some(value) if value.abs() >= 1000.0 => format!("{value:.0}"),
            Some(value) => format!("{value:.4}"),
        };
        self.add(name, shown)
    }

    /// Adds the percentiles of a distribution as `NAME_p50_us` and so on.
    pub(crate) fn percentiles(&mut self, name: &str, latency: &Latency) -> &mut Self {
        for (label, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)] {
            if let Some(micros) = latency.micros(share) {
                self.figure(&format!("{name}_{label}_us"), micros);
            }
        }
        self
    }

    /// Notes that the run did not come to its end.
    pub(crate) fn failure(&mut self, why: &str) -> &mut Self {
        self.failed = true;
        self.text("error", why)
    }

    /// Whether the run came to its end.
    pub(crate) fn is_good(&self) -> bool {
        !self.failed
    }

    /// All figures as one JSON object.
    pub(crate) fn json(&self) -> String {
        let fields: Vec<String> = self.fields.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", fields.join(","))
    }

    /// The figures that matter most to somebody who looks on.
    pub(crate) fn summary(&self) -> String {
        const SHOWN: [&str; 42] = [
            "name",
            "scenario",
            "command",
            "error",
            "e2e_rate",
            "confirm_rate",
            "fill_rate",
            "drain_rate",
            "connect_rate",
            "churn_rate",
            "declare_rate",
            "set_rate",
            "replay_rate",
            "clear_rate",
            "subscribe_rate",
            "rate_kept",
            "lat_p50_us",
            "lat_p99_us",
            "conf_p50_us",
            "conf_p99_us",
            "append_p50_us",
            "overwrite_p50_us",
            "broker_us_per_msg",
            "broker_us_per_delivery",
            "rss_ready",
            "rss_peak",
            "rss_full_per_msg",
            "rss_per_connection",
            "rss_per_queue",
            "rss_per_retained",
            "rss_per_subscription",
            "lost",
            "lost_confirmed",
            "dup",
            "dup_unexplained",
            "reorder",
            "misrouted",
            "corrupt",
            "nacked",
            "misflagged",
            "left",
            "gen_cores",
        ];
        let mut line = String::new();
        for name in SHOWN {
            if let Some((_, value)) = self.fields.iter().find(|(other, _)| other == name) {
                // Writing to a String cannot fail.
                let _ = write!(line, "{name} {}  ", value.trim_matches('"'));
            }
        }
        line
    }

    fn add(&mut self, name: &str, value: String) -> &mut Self {
        self.fields.push((name.into(), value));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_quoted_and_missing_figures_are_null() {
        let mut report = Report::default();
        report.text("name", "a \"b\"\\\n").count("lost", 0).figure("rate", f64::NAN).figure("us", 1.5);
        assert_eq!(report.json(), r#"{"name":"a \"b\"\\ ","lost":0,"rate":null,"us":1.5000}"#);
    }
}
