//! The forms an answer can take. Refusals are JSON with a reason and a way out.

use actix_web::HttpResponse;
use actix_web::http::{StatusCode, header};
use serde::Serialize;
use serde_json::json;

/// A request that is not served: status, what is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) error: String,
    pub(super) way_out: String,
}

impl Refusal {
    pub(super) fn new(
        status: StatusCode,
        error: impl Into<String>,
        way_out: impl Into<String>,
    ) -> Self {
        Self {
            status,
            error: error.into(),
            way_out: way_out.into(),
        }
    }

    pub(super) fn response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"ftpulse\""));
        }
        let body = json!({ "error": self.error, "way_out": self.way_out });
        response
            .content_type("application/json")
            .body(format!("{body}\n"))
    }
}

/// A value as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> HttpResponse {
    match serde_json::to_string(value) {
        Ok(text) => HttpResponse::build(status)
            .content_type("application/json")
            .body(format!("{text}\n")),
        Err(e) => Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the answer cannot be written as JSON: {e}"),
            "please report this as a bug",
        )
        .response(),
    }
}
