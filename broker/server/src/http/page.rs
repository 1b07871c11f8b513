//! A list as JSON, whole or a page of it, in the form of RabbitMQ's management API.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Rows of a page that names no other number.
const ROWS: usize = 100;
/// Most rows of a page.
const MOST_ROWS: usize = 500;

/// Which part of a list is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Whole,
    One { page: usize, rows: usize },
}

impl Page {
    /// Reads `page=…&page_size=…`; the error is for the client.
    pub(super) fn parse(query: Option<&str>) -> Result<Self, String> {
        let value = |name: &str| {
            let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let number = |name: &str, most: usize| match value(name) {
            None => Ok(None),
            Some(text) => match text.parse::<usize>() {
                Ok(number) if (1..=most).contains(&number) => Ok(Some(number)),
                _ => Err(format!("{name} is a number from 1 to {most}\n")),
            },
        };
        match (number("page", 1 << 32)?, number("page_size", MOST_ROWS)?) {
            (None, None) => Ok(Self::Whole),
            (page, rows) => Ok(Self::One { page: page.unwrap_or(1), rows: rows.unwrap_or(ROWS) }),
        }
    }

    /// The rows that are wanted of a list, each made by `row`.
    pub(super) fn of<T>(self, list: &[T], row: impl FnMut(&T) -> Value) -> Response {
        match self {
            Self::Whole => answer(&Value::Array(list.iter().map(row).collect())),
            Self::One { page, rows } => {
                let skipped = page.saturating_sub(1).saturating_mul(rows);
                let items: Vec<Value> = list.iter().skip(skipped).take(rows).map(row).collect();
                answer(&json!({
                    "total_count": list.len(),
                    "filtered_count": list.len(),
                    "item_count": items.len(),
                    "page": page,
                    "page_size": rows,
                    "page_count": list.len().div_ceil(rows).max(1),
                    "items": items,
                }))
            }
        }
    }
}

fn answer(value: &Value) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read() {
        for (query, page) in [
            (None, Ok(Page::Whole)),
            (Some("x=1"), Ok(Page::Whole)),
            (Some("page=3"), Ok(Page::One { page: 3, rows: 100 })),
            (Some("page_size=5&page=2"), Ok(Page::One { page: 2, rows: 5 })),
            (Some("page=0"), Err("page is a number from 1 to 4294967296\n".to_owned())),
            (Some("page=1&page_size=501"), Err("page_size is a number from 1 to 500\n".to_owned())),
            (Some("page=x"), Err("page is a number from 1 to 4294967296\n".to_owned())),
        ] {
            assert_eq!(Page::parse(query), page, "{query:?}");
        }
    }
}
