//! The playground: files of `web/`, embedded, served with their types and an ETag.

use std::sync::{Arc, OnceLock};

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use crate::app::App;
use crate::demos;
use crate::error::ApiError;

macro_rules! files {
    ($($name:literal: $kind:literal,)*) => {
        /// Name, type and content of every file.
        const FILES: &[(&str, &str, &[u8])] = &[$(($name, $kind, include_bytes!(concat!("../web/", $name))),)*];
    };
}

files! {
    "index.html": "text/html; charset=utf-8",
    "run.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "api.js": "text/javascript; charset=utf-8",
    "card.js": "text/javascript; charset=utf-8",
    "chart.js": "text/javascript; charset=utf-8",
    "diff.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "editor.js": "text/javascript; charset=utf-8",
    "filters.js": "text/javascript; charset=utf-8",
    "history.js": "text/javascript; charset=utf-8",
    "main.js": "text/javascript; charset=utf-8",
    "overlap.js": "text/javascript; charset=utf-8",
    "panel_demos.js": "text/javascript; charset=utf-8",
    "panel_next.js": "text/javascript; charset=utf-8",
    "panel_source.js": "text/javascript; charset=utf-8",
    "panel_tokens.js": "text/javascript; charset=utf-8",
    "panel_tree.js": "text/javascript; charset=utf-8",
    "run.js": "text/javascript; charset=utf-8",
    "sampling.js": "text/javascript; charset=utf-8",
    "state.js": "text/javascript; charset=utf-8",
    "storage.js": "text/javascript; charset=utf-8",
    "theme.js": "text/javascript; charset=utf-8",
    "universes.js": "text/javascript; charset=utf-8",
}

/// Scripts and styles from this server only; nothing else is ever loaded.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; \
    form-action 'self'; frame-ancestors 'none'";

/// One route per file, and `/` for the page. The page itself needs no key: it asks the reader for it.
pub fn routes() -> Router<Arc<App>> {
    let index = get(|headers: HeaderMap| async move { file(0, &headers) });
    FILES.iter().enumerate().fold(Router::new().route("/", index), |router, (i, (name, ..))| {
        router.route(&format!("/{name}"), get(move |headers: HeaderMap| async move { file(i, &headers) }))
    })
}

/// A hash of each file, made once.
fn tags() -> &'static [HeaderValue] {
    static TAGS: OnceLock<Vec<HeaderValue>> = OnceLock::new();
    TAGS.get_or_init(|| {
        let tag = |(_, _, content): &(&str, &str, &[u8])| {
            // FNV-1a: the tag only has to change when a build brings another file.
            let hash =
                content.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
            HeaderValue::from_str(&format!("\"{hash:016x}\"")).unwrap_or(HeaderValue::from_static("\"\""))
        };
        FILES.iter().map(tag).collect()
    })
}

fn file(index: usize, headers: &HeaderMap) -> Response {
    let (_, kind, content) = FILES[index];
    let tag = &tags()[index];
    let known = headers.get(header::IF_NONE_MATCH) == Some(tag);
    let mut response = if known { StatusCode::NOT_MODIFIED.into_response() } else { content.into_response() };
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    out.insert(header::ETAG, tag.clone());
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    out.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// The demonstrations for the loaded model.
pub async fn demos(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    app.served()?;
    let own = app.extras.get().and_then(|e| e.demos.clone());
    Ok(Json(json!({"demos": own.unwrap_or_else(demos::general)})))
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
        let mut embedded: Vec<&str> = FILES.iter().map(|f| f.0).collect();
        embedded.sort_unstable();
        assert_eq!(on_disk, embedded);
        for (name, _, content) in FILES {
            let text = std::str::from_utf8(content).expect("text");
            for import in text.split("from \"./").skip(1) {
                let target = import.split('"').next().expect("a name");
                assert!(embedded.contains(&target), "{name} imports {target}");
            }
            assert!(!text.contains("http://") || *name == "icon.svg", "{name} names another server");
            assert!(!text.contains("https://"), "{name} names another server");
        }
    }
}
