//! The status page at `/` and its parts below `/page/`. They are the same for everybody and hold no
//! data: the script asks `/api/status`, with the token that it was given where one is needed. The
//! page runs its own script and nothing else, and makes elements only from parts, never from text.

use actix_web::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use actix_web::{HttpResponse, web};

use super::pages::resource;

/// What a browser may do for the page: its own parts, its own questions, nothing from elsewhere,
/// no text that becomes markup (trusted types, without any policy that could make one).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// A part of the page.
struct Part {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const fn part(path: &'static str, kind: &'static str, text: &'static str) -> Part {
    Part { path, kind, text }
}

const PARTS: &[Part] = &[
    part("/", HTML, include_str!("page/index.html")),
    part("/page/page.css", STYLE, include_str!("page/page.css")),
    part("/page/icon.svg", PICTURE, include_str!("page/icon.svg")),
    part("/page/page.js", SCRIPT, include_str!("page/page.js")),
    part("/page/ask.js", SCRIPT, include_str!("page/ask.js")),
    part("/page/dom.js", SCRIPT, include_str!("page/dom.js")),
    part("/page/words.js", SCRIPT, include_str!("page/words.js")),
    part("/page/routes.js", SCRIPT, include_str!("page/routes.js")),
    part("/page/slots.js", SCRIPT, include_str!("page/slots.js")),
    part(
        "/page/quarantine.js",
        SCRIPT,
        include_str!("page/quarantine.js"),
    ),
    part(
        "/page/incidents.js",
        SCRIPT,
        include_str!("page/incidents.js"),
    ),
];

/// Whether a path is one of the page's parts.
pub(super) fn is_part(path: &str) -> bool {
    PARTS.iter().any(|part| part.path == path)
}

/// The parts.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    for part in PARTS {
        let (get, head) = (
            web::get().to(|| answer(part)),
            web::head().to(|| answer(part)),
        );
        config.service(resource(part.path, get, head));
    }
}

async fn answer(part: &'static Part) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, part.kind))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .body(part.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_begins_with_its_contract_stays_small_and_is_used() {
        let all: String = PARTS.iter().map(|part| part.text).collect();
        for Part { path, kind, text } in PARTS {
            let begins = if *kind == SCRIPT {
                "// "
            } else if *kind == STYLE {
                "/* "
            } else {
                "<!"
            };
            assert!(text.starts_with(begins), "{path}");
            assert!(text.lines().count() <= 450, "{path}: two rooms");
            let name = path.rsplit('/').next().unwrap_or_default();
            assert!(
                *path == "/" || all.contains(name),
                "{path}: nobody asks for it"
            );
        }
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/page");
        let files = std::fs::read_dir(folder).unwrap().count();
        assert_eq!(files, PARTS.len(), "every file is served");
    }

    #[test]
    fn nothing_of_the_page_is_inline_foreign_or_made_from_text() {
        for Part { path, text, .. } in PARTS {
            for text_to_markup in [
                "innerHTML",
                "outerHTML",
                "insertAdjacent",
                "document.write",
                "eval(",
                "Function(",
                "style=",
                "javascript:",
                "https:",
                "localStorage",
                "cookie",
            ] {
                assert!(!text.contains(text_to_markup), "{path}: {text_to_markup}");
            }
            let foreign = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!foreign.contains("http:"), "{path}");
        }
        let attributes = PARTS[0].text.split(" on").skip(1);
        for text in attributes {
            let name = text.bytes().take_while(u8::is_ascii_lowercase).count();
            assert!(!text[name..].starts_with('='), "a handler: on{text}");
        }
    }
}
