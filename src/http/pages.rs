//! The pages: each asks the source, waits a bounded time and answers.
//! Metrics and probes ask nobody and so answer even while the daemon does not.

use std::future::Future;
use std::time::Duration;

use actix_web::http::{Method, StatusCode, header};
use actix_web::rt::time::timeout;
use actix_web::{HttpRequest, HttpResponse, Resource, Route, web};
use serde_json::json;
use slog::debug;

use super::answer::{self, Refusal};
use super::{Health, State, Unavailable, page, reload, retry};
use crate::metrics::CONTENT_TYPE;

/// How long the source may take. A daemon that turns answers within a tick of 250 ms.
const PATIENCE: Duration = Duration::from_secs(2);

/// The table of pages.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .configure(page::routes)
        .service(resource(
            "/metrics",
            web::get().to(metrics),
            web::head().to(metrics),
        ))
        .service(resource(
            "/healthz",
            web::get().to(healthz),
            web::head().to(healthz),
        ))
        .service(resource(
            "/readyz",
            web::get().to(readyz),
            web::head().to(readyz),
        ))
        .service(resource(
            "/api/status",
            web::get().to(status),
            web::head().to(status),
        ))
        .service(resource(
            "/api/incidents",
            web::get().to(incidents),
            web::head().to(incidents),
        ))
        .service(resource(
            "/api/incidents/{id}",
            web::get().to(incident),
            web::head().to(incident),
        ))
        .service(reload::page())
        .service(retry::page())
        .default_service(web::to(unknown));
}

/// A page that is only read.
pub(super) fn resource(path: &str, get: Route, head: Route) -> Resource {
    web::resource(path)
        .route(get)
        .route(head)
        .default_service(web::to(wrong_method))
}

async fn metrics(state: web::Data<State>) -> HttpResponse {
    let ready = state.source.ready().is_empty();
    state.metrics.ready().set(ready.into());
    match state.metrics.render() {
        Ok(text) => HttpResponse::Ok().content_type(CONTENT_TYPE).body(text),
        Err(e) => Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the metrics cannot be written: {e}"),
            "please report this as a bug",
        )
        .response(),
    }
}

async fn healthz(state: web::Data<State>) -> HttpResponse {
    match state.source.healthy() {
        Health::Turning => answer::json(StatusCode::OK, &json!({ "healthy": true })),
        Health::Stuck { silent } => answer::json(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({
                "healthy": false,
                "error": "the daemon's loop does not turn",
                "silent_seconds": silent.as_secs_f64(),
                "way_out": "the watchdog or the container's runtime restarts the service",
            }),
        ),
    }
}

async fn readyz(state: web::Data<State>) -> HttpResponse {
    let reasons = state.source.ready();
    let ready = reasons.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    answer::json(status, &json!({ "ready": ready, "reasons": reasons }))
}

async fn status(state: web::Data<State>) -> HttpResponse {
    match bounded(&state, state.source.status()).await {
        Ok(mut status) => {
            status.not_ready = state.source.ready();
            answer::json(StatusCode::OK, &status)
        }
        Err(refusal) => refusal.response(),
    }
}

async fn incidents(state: web::Data<State>) -> HttpResponse {
    match bounded(&state, state.source.incidents()).await {
        Ok(incidents) => answer::json(StatusCode::OK, &incidents),
        Err(refusal) => refusal.response(),
    }
}

async fn incident(state: web::Data<State>, id: web::Path<String>) -> HttpResponse {
    // Digits only: `parse` would take a sign too.
    let number = id
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| id.parse::<u64>().ok())
        .flatten();
    let Some(number) = number else {
        return Refusal::new(
            StatusCode::NOT_FOUND,
            format!(
                "`{}` is not the number of an incident",
                crate::log::escape(&id)
            ),
            "incidents are numbered from 1; /api/incidents lists them",
        )
        .response();
    };
    match bounded(&state, state.source.incident(number)).await {
        Ok(Some(incident)) => answer::json(StatusCode::OK, &incident),
        Ok(None) => Refusal::new(
            StatusCode::NOT_FOUND,
            format!("there is no incident {number}, or it is no longer kept"),
            "/api/incidents lists those that are kept",
        )
        .response(),
        Err(refusal) => refusal.response(),
    }
}

async fn unknown(request: HttpRequest) -> HttpResponse {
    Refusal::new(
        StatusCode::NOT_FOUND,
        format!("there is no page `{}`", crate::log::escape(request.path())),
        "there are /, /metrics, /healthz, /readyz, /api/status, /api/incidents, \
         /api/incidents/ID and (POST) /api/retry",
    )
    .response()
}

async fn wrong_method(method: Method) -> HttpResponse {
    let mut response = Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("this page does not take {method}"),
        "use GET or HEAD",
    )
    .response();
    let allowed = header::HeaderValue::from_static("GET, HEAD");
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

/// The source's answer, or a 503 that says why there is none.
async fn bounded<T>(
    state: &State,
    answer: impl Future<Output = Result<T, Unavailable>>,
) -> Result<T, Refusal> {
    let reason = match timeout(PATIENCE, answer).await {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(unavailable)) => unavailable.0,
        Err(_) => format!("the daemon did not answer within {} s", PATIENCE.as_secs()),
    };
    // Clients set the pace of these lines, so they stay below the usual level.
    debug!(state.log, "no answer for a page"; "error" => &reason, "next" => "503 to the client");
    Err(Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        reason,
        "try again in a few seconds; /healthz tells whether the daemon turns",
    ))
}
