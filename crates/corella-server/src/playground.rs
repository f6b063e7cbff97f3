//! The playground: files of `web/`, embedded, served with their types and an ETag. The pages share one shell, which brings
//! the style along, so that the first answer has all that the first paint needs.

use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use crate::app::App;
use crate::demos;
use crate::error::ApiError;

/// The frame of every page, with the places `{title}`, `{style}`, `{script}` and `{body}`.
const SHELL: &str = include_str!("../web/shell.html");
const STYLE: &str = include_str!("../web/style.css");
/// Name, title, script and body of every page.
const PAGES: [(&str, &str, &str, &str); 3] = [
    ("index.html", "Corella playground", "main.js", include_str!("../web/index.html")),
    ("anatomy.html", "Corella anatomy", "anatomy.js", include_str!("../web/anatomy.html")),
    ("run.html", "Corella run", "run.js", include_str!("../web/run.html")),
];

macro_rules! files {
    ($($name:literal: $kind:literal,)*) => {
        /// Name, type and content of every file that is served as it is.
        const FILES: &[(&str, &str, &[u8])] = &[$(($name, $kind, include_bytes!(concat!("../web/", $name))),)*];
    };
}

files! {
    "icon.svg": "image/svg+xml",
    "anatomy.js": "text/javascript; charset=utf-8",
    "anatomy_picture.js": "text/javascript; charset=utf-8",
    "anatomy_stack.js": "text/javascript; charset=utf-8",
    "anatomy_steps.js": "text/javascript; charset=utf-8",
    "anatomy_words.js": "text/javascript; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "card.js": "text/javascript; charset=utf-8",
    "chart.js": "text/javascript; charset=utf-8",
    "claims.js": "text/javascript; charset=utf-8",
    "connection.js": "text/javascript; charset=utf-8",
    "diff.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "editor.js": "text/javascript; charset=utf-8",
    "ending.js": "text/javascript; charset=utf-8",
    "figures.js": "text/javascript; charset=utf-8",
    "filters.js": "text/javascript; charset=utf-8",
    "generation.js": "text/javascript; charset=utf-8",
    "history.js": "text/javascript; charset=utf-8",
    "keys.js": "text/javascript; charset=utf-8",
    "lines.js": "text/javascript; charset=utf-8",
    "main.js": "text/javascript; charset=utf-8",
    "overlap.js": "text/javascript; charset=utf-8",
    "pages.js": "text/javascript; charset=utf-8",
    "panel_demos.js": "text/javascript; charset=utf-8",
    "panel_next.js": "text/javascript; charset=utf-8",
    "panel_source.js": "text/javascript; charset=utf-8",
    "panel_tokens.js": "text/javascript; charset=utf-8",
    "panel_tree.js": "text/javascript; charset=utf-8",
    "read_tokens.js": "text/javascript; charset=utf-8",
    "rescue.js": "text/javascript; charset=utf-8",
    "run.js": "text/javascript; charset=utf-8",
    "sampling.js": "text/javascript; charset=utf-8",
    "state.js": "text/javascript; charset=utf-8",
    "status.js": "text/javascript; charset=utf-8",
    "storage.js": "text/javascript; charset=utf-8",
    "timeline.js": "text/javascript; charset=utf-8",
    "theme.js": "text/javascript; charset=utf-8",
    "tree_actions.js": "text/javascript; charset=utf-8",
    "tree_file.js": "text/javascript; charset=utf-8",
    "universes.js": "text/javascript; charset=utf-8",
}

/// Scripts and styles from this server only; nothing else is ever loaded.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; \
    form-action 'self'; frame-ancestors 'none'";

/// What is served at a path.
struct Asset {
    name: &'static str,
    kind: &'static str,
    content: Bytes,
    tag: HeaderValue,
}

impl Asset {
    fn new(name: &'static str, kind: &'static str, content: Bytes) -> Asset {
        // FNV-1a: the tag only has to change when a build brings another file.
        let hash =
            content.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
        let tag = HeaderValue::from_str(&format!("\"{hash:016x}\"")).unwrap_or(HeaderValue::from_static("\"\""));
        Asset { name, kind, content, tag }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let known = headers.get(header::IF_NONE_MATCH) == Some(&self.tag);
        let mut response =
            if known { StatusCode::NOT_MODIFIED.into_response() } else { self.content.clone().into_response() };
        let out = response.headers_mut();
        out.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        out.insert(header::ETAG, self.tag.clone());
        out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        out.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        response
    }
}

/// Pages and files, put together once.
fn assets() -> &'static [Asset] {
    static ASSETS: OnceLock<Vec<Asset>> = OnceLock::new();
    ASSETS.get_or_init(|| {
        let page = |(name, title, script, body): &(&'static str, &str, &str, &str)| {
            let parts = [("{title}", *title), ("{style}", STYLE), ("{script}", script), ("{body}", body)];
            let text = parts.iter().fold(SHELL.to_owned(), |page, (place, part)| page.replacen(place, part, 1));
            Asset::new(name, "text/html; charset=utf-8", text.into())
        };
        let file = |(name, kind, content): &(&'static str, &'static str, &'static [u8])| {
            Asset::new(name, kind, Bytes::from_static(content))
        };
        PAGES.iter().map(page).chain(FILES.iter().map(file)).collect()
    })
}

/// One route for each, and `/` for the first page. The page itself needs no key: it asks the reader for it.
pub fn routes() -> Router<Arc<App>> {
    let serve = |asset: &'static Asset| get(move |headers: HeaderMap| async move { asset.answer(&headers) });
    let all = assets().iter().fold(Router::new(), |all, asset| all.route(&format!("/{}", asset.name), serve(asset)));
    all.route("/", serve(&assets()[0]))
}

/// The demonstrations for the loaded model.
pub async fn demos(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    app.served()?;
    let own = app.extras.get().and_then(|e| e.demos.clone());
    Ok(Json(json!({"demos": own.unwrap_or_else(demos::general)})))
}

/// What the loaded model is made of, as the binary has said it; null where it has not.
pub async fn anatomy(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    app.served()?;
    Ok(Json(app.extras.get().and_then(|extras| extras.anatomy.as_ref())).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_embedded_and_every_import_is_served() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/web")).expect("a folder");
        let mut on_disk: Vec<String> =
            folder.map(|e| e.expect("an entry").file_name().into_string().expect("a name")).collect();
        on_disk.retain(|name| !name.starts_with('.') && name != "test");
        on_disk.sort();
        let mut embedded: Vec<&str> = assets().iter().map(|a| a.name).chain(["shell.html", "style.css"]).collect();
        embedded.sort_unstable();
        assert_eq!(on_disk, embedded);
        for Asset { name, content, .. } in assets() {
            let text = std::str::from_utf8(content).expect("text");
            assert!(!text.contains("{body}") && !text.contains("{style}"), "{name} was not filled");
            for import in text.split("from \"./").skip(1) {
                let target = import.split('"').next().expect("a name");
                assert!(embedded.contains(&target), "{name} imports {target}");
            }
            assert!(!text.contains("http://") || *name == "icon.svg", "{name} names another server");
            assert!(!text.contains("https://"), "{name} names another server");
        }
    }
}
