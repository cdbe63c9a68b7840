//! `POST /api/retry`: dead letters are sent again. It changes something, so `access` demands the
//! token; the body is small, known in every field and read within a bound.

use std::time::Duration;

use actix_web::http::{Method, StatusCode, header};
use actix_web::rt::time::timeout;
use actix_web::{HttpResponse, Resource, web};

use super::answer::{self, Refusal};
use super::{Retried, State};
use crate::log::{escape, escape_reply};
use crate::report::RetryRequest;

/// Where it is.
pub(super) const PATH: &str = "/api/retry";
/// The body at most: some thousand long names.
const BYTES_MAX: usize = 1024 * 1024;
/// How long a client may take to send it.
const BODY: Duration = Duration::from_secs(5);
/// How long the spool's thread may take: it may be in the middle of a scan or a slow
/// move.
const PATIENCE: Duration = Duration::from_secs(30);
/// The way out of a body that is none.
const EXAMPLE: &str =
    "send {\"route\": \"main\", \"files\": [\"a.csv\"]}; without files all are meant";

/// The page.
pub(super) fn page() -> Resource {
    web::resource(PATH)
        .route(web::post().to(retry))
        .default_service(web::to(wrong_method))
}

async fn retry(state: web::Data<State>, body: web::Payload) -> HttpResponse {
    let request = match read(body).await {
        Ok(request) => request,
        Err(refusal) => return refusal.response(),
    };
    let route = request.route.clone();
    let unavailable = |why: String| {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            why,
            "look with `ftpulse status` what the route does, and try again",
        )
    };
    let refusal = match timeout(PATIENCE, state.source.retry(request)).await {
        Ok(Ok(Retried::Done(done))) => return answer::json(StatusCode::OK, &done),
        Ok(Ok(Retried::NoRoute { routes })) => Refusal::new(
            StatusCode::NOT_FOUND,
            format!(
                "there is no route {}; there are: {}",
                escape(&route),
                routes.join(", ")
            ),
            "name one of them",
        ),
        Ok(Err(why)) => unavailable(why.0),
        Err(_) => unavailable(format!(
            "the spool's thread did not come to it within {} s; it may do it still",
            PATIENCE.as_secs()
        )),
    };
    refusal.response()
}

async fn read(body: web::Payload) -> Result<RetryRequest, Refusal> {
    let bad = |why: String| Refusal::new(StatusCode::BAD_REQUEST, why, EXAMPLE);
    let bytes = match timeout(BODY, body.to_bytes_limited(BYTES_MAX)).await {
        Ok(Ok(Ok(bytes))) => bytes,
        Ok(Ok(Err(error))) => return Err(bad(format!("the body cannot be read: {error}"))),
        Ok(Err(_)) => {
            return Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than {BYTES_MAX} bytes"),
                "name fewer files at once, or none for all",
            ));
        }
        Err(_) => return Err(bad(format!("the body did not come within {BODY:?}"))),
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let error = escape_reply(error.to_string().as_bytes());
        bad(format!("the body is not what is expected: {error}"))
    })
}

pub(super) async fn wrong_method(method: Method) -> HttpResponse {
    let mut response = Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("this page does not take {method}"),
        "use POST",
    )
    .response();
    let allowed = header::HeaderValue::from_static("POST");
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}
