//! `POST /api/reload`: the configuration is read anew. It changes something, so `access` demands
//! the token; what the request's body says is not looked at. A configuration with faults changes
//! nothing: the answer has them, in the words of `ftpulse check`.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::rt::time::timeout;
use actix_web::{HttpResponse, Resource, web};

use super::answer::{self, Refusal};
use super::{State, retry};

/// Where it is.
pub(super) const PATH: &str = "/api/reload";
/// How long it may take: files of the configuration may lie on a slow disk, and one reload waits
/// for another.
const PATIENCE: Duration = Duration::from_secs(60);

/// The page.
pub(super) fn page() -> Resource {
    web::resource(PATH)
        .route(web::post().to(reload))
        .default_service(web::to(retry::wrong_method))
}

async fn reload(state: web::Data<State>) -> HttpResponse {
    let unavailable = |why: String| {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            why,
            "look into the log what the service does, and try again",
        )
    };
    let refusal = match timeout(PATIENCE, state.source.reload()).await {
        Ok(Ok(Ok(reloaded))) => return answer::json(StatusCode::OK, &reloaded),
        Ok(Ok(Err(faults))) => return answer::json(StatusCode::UNPROCESSABLE_ENTITY, &faults),
        Ok(Err(why)) => unavailable(why.0),
        Err(_) => unavailable(format!(
            "the service did not come to it within {} s; it may do it still",
            PATIENCE.as_secs()
        )),
    };
    refusal.response()
}
