//! Listing and download against a server that speaks the hub's protocol.

mod hub_server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use corella_hub::{HubClient, HubError, HubName, Settings};
use hub_server::{COMMIT, HubServer};

struct Cache(PathBuf);

impl Cache {
    fn new(name: &str) -> Cache {
        let path = std::env::temp_dir().join(format!("corella-hub-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Cache(path)
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn settings(server: &HubServer, cache: &Cache, token: Option<&str>) -> Settings {
    Settings {
        endpoint: server.endpoint.clone(),
        cache: cache.0.clone(),
        token: token.map(str::to_owned),
        offline: false,
        tries: 3,
        first_wait: Duration::from_millis(1),
    }
}

fn client(server: &HubServer, cache: &Cache, token: Option<&str>) -> HubClient {
    HubClient::new(settings(server, cache, token))
}

fn big() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn name(text: &str) -> HubName {
    text.parse().expect("a name")
}

fn get(client: &HubClient, file: &str) -> Result<PathBuf, HubError> {
    client.download(&name("hf://datasets/o/n"), COMMIT, file, &mut |_| ())
}

#[test]
fn files_are_listed_chosen_fetched_and_kept_in_the_shared_layout() {
    let (cache, big) = (Cache::new("layout"), big());
    let server = HubServer::start(&[("README.md", b"hello"), ("data/train 0.bin", &big), ("data/val.bin", &big)]);
    let client = client(&server, &cache, None);
    let wanted = name("hf://datasets/o/n/data/*.bin");
    let listing = client.list(&wanted).expect("a listing");
    let paths: Vec<_> = listing.files.iter().map(|f| (f.path.as_str(), f.size)).collect();
    assert_eq!(paths, [("data/train 0.bin", Some(300_000)), ("data/val.bin", Some(300_000))]);
    let mut last = 0;
    let local =
        client.download(&wanted, &listing.commit, "data/train 0.bin", &mut |t| last = t.bytes).expect("fetched");
    assert_eq!((std::fs::read(&local).expect("read"), last), (big, 300_000));
    let root = cache.0.join("datasets--o--n");
    assert_eq!(local, root.join("snapshots").join(COMMIT).join("data/train 0.bin"));
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).expect("a ref"), COMMIT);
    assert_eq!(std::fs::read_dir(root.join("blobs")).expect("blobs").count(), 1, "no partial file is left");
    // The same content under a second name is not fetched again, nor is a file that the cache has.
    get(&client, "data/val.bin").expect("linked");
    get(&client, "data/val.bin").expect("cached");
    assert_eq!(server.ranges(), ["-"]);
    assert_eq!(std::fs::read(get(&client, "README.md").expect("small")).expect("read"), b"hello");
    // Offline, the same listing and files come out of the cache, and nothing else.
    let offline = HubClient::new(Settings {
        endpoint: "http://127.0.0.1:1".to_owned(),
        cache: cache.0.clone(),
        token: None,
        offline: true,
        tries: 1,
        first_wait: Duration::ZERO,
    });
    assert_eq!(offline.list(&wanted).expect("cached").files, listing.files);
    get(&offline, "data/val.bin").expect("cached");
    assert!(matches!(get(&offline, "other"), Err(HubError::Offline(_))));
}

#[test]
fn a_model_in_the_cache_needs_no_network() {
    let cache = Cache::new("unreachable");
    let model = name("hf://o/n");
    let server = HubServer::start(&[("config.json", b"{}"), ("model.safetensors", b"weights"), ("unused", b"x")]);
    let online = client(&server, &cache, None);
    for file in ["config.json", "model.safetensors"] {
        online.download(&model, &online.list(&model).expect("a listing").commit, file, &mut |_| ()).expect("fetched");
    }
    // Nothing listens there.
    let alone =
        HubClient::new(Settings { endpoint: "http://127.0.0.1:1".to_owned(), ..settings(&server, &cache, None) });
    let kept = alone.list(&model).expect("the cache's");
    assert_eq!((&kept.commit[..], kept.unreachable.is_some()), (COMMIT, true));
    assert_eq!(kept.files.iter().map(|f| &f.path[..]).collect::<Vec<_>>(), ["config.json", "model.safetensors"]);
    alone.download(&model, &kept.commit, "config.json", &mut |_| ()).expect("cached");
    // A hub that cannot answer now is asked once; one that says no is believed.
    server.state().refusals = vec![503];
    server.state().seen.clear();
    assert!(online.list(&model).expect("the cache's").unreachable.is_some());
    assert_eq!(server.state().seen.len(), 1);
    server.state().refusals = vec![401];
    assert!(matches!(online.list(&model), Err(HubError::Unauthorized { .. })));
    assert!(online.list(&model).expect("the hub's").unreachable.is_none());
    // A part of a data set would be taken for all of it.
    get(&online, "unused").expect("fetched");
    online.list(&name("hf://datasets/o/n")).expect("a listing");
    assert!(matches!(alone.list(&name("hf://datasets/o/n")), Err(HubError::Transport { .. })));
}

#[test]
fn a_broken_connection_is_taken_up_where_it_broke() {
    let (cache, big) = (Cache::new("resume"), big());
    let server = HubServer::start(&[("a.bin", &big)]);
    server.state().cuts = vec![100_000, 50_000];
    let local = get(&client(&server, &cache, None), "a.bin").expect("fetched");
    assert_eq!(std::fs::read(local).expect("read"), big);
    assert_eq!(server.ranges(), ["-", "bytes=100000-", "bytes=150000-"]);
}

#[test]
fn a_later_run_goes_on_with_what_an_earlier_one_left() {
    let (cache, big) = (Cache::new("later"), big());
    let server = HubServer::start(&[("a.bin", &big)]);
    server.state().cuts = vec![70_000, 0, 0, 0, 0, 0];
    let client = client(&server, &cache, None);
    assert!(matches!(get(&client, "a.bin"), Err(HubError::Transport { .. })));
    server.state().cuts.clear();
    server.state().seen.clear();
    assert_eq!(std::fs::read(get(&client, "a.bin").expect("fetched")).expect("read"), big);
    assert_eq!(server.ranges(), ["bytes=70000-"]);
}

#[test]
fn a_server_without_ranges_sends_the_whole_again() {
    let (cache, big) = (Cache::new("whole"), big());
    let server = HubServer::start(&[("a.bin", &big)]);
    server.state().cuts = vec![100_000];
    server.state().no_ranges = true;
    assert_eq!(std::fs::read(get(&client(&server, &cache, None), "a.bin").expect("fetched")).expect("read"), big);
}

#[test]
fn changed_content_is_refused_and_not_kept() {
    let (cache, big) = (Cache::new("corrupt"), big());
    let server = HubServer::start(&[("a.bin", &big)]);
    server.state().corrupt = true;
    let client = client(&server, &cache, None);
    assert!(matches!(get(&client, "a.bin"), Err(HubError::Corrupt { .. })));
    server.state().corrupt = false;
    assert_eq!(std::fs::read(get(&client, "a.bin").expect("fetched")).expect("read"), big);
}

#[test]
fn the_token_is_shown_to_the_hub_and_never_to_the_store() {
    let (cache, big) = (Cache::new("token"), big());
    let server = HubServer::start(&[("a.bin", &big)]);
    server.state().token = Some("secret".to_owned());
    let stranger = get(&client(&server, &cache, None), "a.bin").expect_err("refused");
    assert!(
        matches!(stranger, HubError::Unauthorized { .. }) && stranger.hint().is_some_and(|h| h.contains("HF_TOKEN"))
    );
    assert!(stranger.to_string().contains("GatedRepo"), "{stranger}");
    get(&client(&server, &cache, Some("secret")), "a.bin").expect("fetched");
    let state = server.state();
    let shown = |(_, path, headers): &&hub_server::Request| {
        path.starts_with("/store/") && headers.iter().any(|(n, _)| n == "authorization")
    };
    assert_eq!(state.seen.iter().filter(shown).count(), 0);
}

#[test]
fn waits_and_refusals_are_told_apart() {
    let cache = Cache::new("refusals");
    let server = HubServer::start(&[("a.bin", b"x")]);
    let client = client(&server, &cache, None);
    server.state().refusals = vec![429, 503];
    get(&client, "a.bin").expect("after two refusals");
    server.state().refusals = vec![429; 3];
    let busy = client.list(&name("hf://datasets/o/n")).expect_err("too often");
    assert!(matches!(busy, HubError::RateLimited { .. }) && busy.hint().is_some());
    let missing = get(&client, "b.bin").expect_err("missing");
    assert!(matches!(missing, HubError::NotFound { .. }) && missing.to_string().contains("EntryNotFound"));
    assert!(matches!(client.list(&name("hf://datasets/o/other")), Err(HubError::NotFound { .. })));
    let none = client.list(&name("hf://datasets/o/n/*.parquet")).expect_err("no match");
    assert!(none.to_string().contains("a.bin"), "{none}");
    server.state().refusals = vec![403];
    assert!(matches!(client.list(&name("hf://datasets/o/n")), Err(HubError::Forbidden { .. })));
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    let cache = Cache::new("escape");
    for evil in ["../../evil", "/etc/evil", "a/../../evil", "a\\b"] {
        let server = HubServer::start(&[(evil, b"x")]);
        let client = client(&server, &cache, None);
        assert!(matches!(client.list(&name("hf://datasets/o/n")), Err(HubError::BadAnswer { .. })), "{evil}");
        assert!(matches!(get(&client, evil), Err(HubError::BadAnswer { .. })), "{evil}");
    }
    assert!(!Path::new(&cache.0).join("evil").exists());
}
