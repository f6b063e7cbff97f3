//! Listing and download against a server that speaks the hub's protocol.

mod cached;
mod hub_server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use corella_hub::{HubClient, HubError, HubName, Notice, RemoteFile, Settings};
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
        token_from: "HF_TOKEN".to_owned(),
        roots: None,
        offline: false,
        progress: true,
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

/// A file of which only the name is known.
fn unsized_file(path: &str) -> RemoteFile {
    RemoteFile { path: path.to_owned(), size: None }
}

fn get(client: &HubClient, file: &str) -> Result<PathBuf, HubError> {
    client.download(&name("hf://datasets/o/n"), COMMIT, &unsized_file(file), &mut |_| ())
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
    let local = client.download(&wanted, &listing.commit, &listing.files[0], &mut |t| last = t.bytes).expect("fetched");
    assert_eq!((std::fs::read(&local).expect("read"), last), (big, 300_000));
    let root = cache.0.join("datasets--o--n");
    assert_eq!(local, root.join("snapshots").join(COMMIT).join("data/train 0.bin"));
    assert_eq!(std::fs::read_dir(root.join("blobs")).expect("blobs").count(), 1, "no partial file is left");
    // The same content under a second name is not fetched again, nor is a file that the cache has.
    assert!(!root.join("refs").exists(), "a part was fetched");
    client.fetch(&wanted, &listing, &mut |_, _| ()).expect("linked");
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).expect("a ref"), COMMIT);
    get(&client, "data/val.bin").expect("cached");
    assert_eq!(server.ranges(), ["-"]);
    assert_eq!(std::fs::read(get(&client, "README.md").expect("small")).expect("read"), b"hello");
    // Offline, the same listing and files come out of the cache, and nothing else.
    let offline = HubClient::new(Settings {
        endpoint: "http://127.0.0.1:1".to_owned(),
        offline: true,
        ..settings(&server, &cache, None)
    });
    assert_eq!(offline.list(&wanted).expect("cached").files, listing.files);
    get(&offline, "data/val.bin").expect("cached");
    assert!(matches!(get(&offline, "other"), Err(HubError::Offline(_))));
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
fn a_listing_that_breaks_off_is_asked_for_again() {
    let cache = Cache::new("listing");
    let server = HubServer::start(&[("a.bin", b"small")]);
    server.state().listing_cuts = vec![20, 0];
    let listed = name("hf://datasets/o/n");
    assert_eq!(client(&server, &cache, None).list(&listed).expect("listed").files.len(), 1);
    assert_eq!(server.state().seen.len(), 3);
    server.state().listing_cuts = vec![20; 10];
    let other = Cache::new("listing-never");
    let refused = client(&server, &other, None).list(&listed);
    assert!(matches!(refused, Err(HubError::Transport { .. })), "{refused:?}");
}

#[test]
fn what_the_disk_has_no_room_for_is_not_begun() {
    let (cache, big) = (Cache::new("room"), big());
    let server = HubServer::start(&[("a.bin", &big)]);
    let (client, name) = (client(&server, &cache, None), name("hf://datasets/o/n"));
    let mut listing = client.list(&name).expect("listed");
    let fetched = |listing: &corella_hub::Listing| client.fetch(&name, listing, &mut |_, _| ());
    listing.files.push(RemoteFile { path: "huge.bin".to_owned(), size: Some(1 << 60) });
    server.state().seen.clear();
    let refused = fetched(&listing).expect_err("an exabyte");
    assert!(matches!(&refused, HubError::NoRoom { needed, .. } if *needed == (1 << 60) + 300_000), "{refused}");
    assert!(refused.hint().is_some_and(|hint| hint.contains("HF_HOME")));
    assert!(server.state().seen.is_empty());
    listing.files.pop();
    fetched(&listing).expect("fetched");
    listing.files[0].path = "as another commit names it.bin".to_owned();
    listing.files.push(RemoteFile { path: "huge.bin".to_owned(), size: Some(1 << 60) });
    let refused = fetched(&listing).expect_err("an exabyte");
    assert!(matches!(refused, HubError::NoRoom { needed, .. } if needed == 1 << 60), "{refused}");
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
fn a_damaged_beginning_costs_the_file_and_not_the_run() {
    let (cache, big) = (Cache::new("damaged"), big());
    let server = HubServer::start(&[("a.bin", &big)]);
    server.state().cuts = vec![70_000, 0, 0, 0, 0, 0];
    let (told, notices) = std::sync::mpsc::channel();
    let client = client(&server, &cache, None).on_notice(move |notice| {
        if matches!(notice, Notice::Anew { .. }) {
            told.send(notice.to_string()).expect("heard");
        }
    });
    assert!(matches!(get(&client, "a.bin"), Err(HubError::Transport { .. })));
    let blobs = cache.0.join("datasets--o--n/blobs");
    let part = std::fs::read_dir(blobs).expect("a folder").flatten().next().expect("a part").path();
    let mut bytes = std::fs::read(&part).expect("read");
    bytes[5] ^= 1;
    // Damaged inside, and longer than the whole.
    for left in [bytes, vec![7; big.len() + 1]] {
        std::fs::write(&part, &left).expect("written");
        server.state().cuts.clear();
        server.state().seen.clear();
        assert_eq!(std::fs::read(get(&client, "a.bin").expect("fetched")).expect("read"), big);
        assert_eq!(server.ranges().last().map(String::as_str), Some("-"));
        assert!(notices.try_recv().expect("a notice").contains("a.bin"));
        std::fs::remove_dir_all(cache.0.join("datasets--o--n/snapshots")).expect("removed");
        std::fs::remove_file(part.with_extension("")).expect("removed");
    }
    // A server that sends something else each time is asked once more and no oftener.
    std::fs::write(&part, &big[..50]).expect("written");
    server.state().corrupt = true;
    server.state().seen.clear();
    assert!(matches!(get(&client, "a.bin"), Err(HubError::Corrupt { .. })));
    assert_eq!(server.ranges(), ["bytes=50-", "-"]);
}

#[test]
fn files_that_are_not_named_with_the_commit_are_named_in_pages() {
    let cache = Cache::new("pages");
    let files: [(&str, &[u8]); 5] = [("a", b"1"), ("b", b"22"), ("c/d", b"3"), ("c/e", b"4"), ("f", b"5")];
    let server = HubServer::start(&files);
    server.state().in_pages = true;
    let client = client(&server, &cache, None);
    for repository in ["hf://o/n", "hf://datasets/o/n"].map(name) {
        let listing = client.list(&repository).expect("a listing");
        let found: Vec<_> = listing.files.iter().map(|f| (&f.path[..], f.size)).collect();
        assert_eq!(found, files.map(|(path, bytes)| (path, Some(bytes.len() as u64))));
    }
    assert_eq!(server.state().seen.len(), 8, "the commit and three pages");
}

#[test]
fn the_window_of_the_hubs_limit_is_waited_for() {
    let cache = Cache::new("window");
    let server = HubServer::start(&[("a.bin", b"x")]);
    let (told, notices) = std::sync::mpsc::channel();
    let slow = Settings { first_wait: Duration::from_secs(100), ..settings(&server, &cache, None) };
    let client = HubClient::new(slow).on_notice(move |notice| {
        told.send(notice.to_string()).expect("heard");
    });
    server.state().refused_with = Some("ratelimit: \"resolvers\";r=0;t=0".to_owned());
    server.state().refusals = vec![429];
    get(&client, "a.bin").expect("in the next window");
    let notice = notices.try_recv().expect("a notice");
    assert!(notice.contains("429") && notice.contains("again in 1 s"), "{notice}");
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
    let wrong = get(&client(&server, &cache, Some("wrong")), "a.bin").expect_err("refused");
    assert!(matches!(&wrong, HubError::TokenRefused { from, .. } if from == "HF_TOKEN"), "{wrong}");
    assert!(wrong.to_string().contains("refuses the token of HF_TOKEN") && wrong.hint().is_some(), "{wrong}");
    get(&client(&server, &cache, Some("secret")), "a.bin").expect("fetched");
    let state = server.state();
    let shown = |(_, path, headers): &&hub_server::Request| {
        path.starts_with("/store/") && headers.iter().any(|(n, _)| n == "authorization")
    };
    assert_eq!(state.seen.iter().filter(shown).count(), 0);
}

#[test]
fn another_port_of_the_same_host_is_not_shown_the_token() {
    let (cache, big) = (Cache::new("port"), big());
    let (server, store) = (HubServer::start(&[("a.bin", &big)]), HubServer::start(&[("a.bin", &big)]));
    server.state().token = Some("secret".to_owned());
    server.state().store = Some(store.endpoint.clone());
    get(&client(&server, &cache, Some("secret")), "a.bin").expect("fetched");
    let state = store.state();
    assert_eq!(state.seen.len(), 1);
    assert!(state.seen.iter().all(|(.., headers)| headers.iter().all(|(n, _)| n != "authorization")));
}

#[test]
fn a_hub_below_a_path_may_redirect_inside_itself() {
    let (cache, big) = (Cache::new("prefix"), big());
    let server = HubServer::start(&[("a.bin", &big)]);
    server.state().prefix = "/mirror".to_owned();
    server.state().token = Some("secret".to_owned());
    let endpoint = format!("{}/mirror", server.endpoint);
    let client = HubClient::new(Settings { endpoint, ..settings(&server, &cache, Some("secret")) });
    let old = name("hf://datasets/o/old");
    let listing = client.list(&old).expect("the new name's");
    let local = client.fetch(&old, &listing, &mut |_, _| ()).expect("fetched").remove(0);
    assert_eq!(std::fs::read(local).expect("read"), big);
}

#[test]
fn a_file_that_was_cut_short_is_fetched_again() {
    let (cache, big) = (Cache::new("cut"), big());
    let server = HubServer::start(&[("a.bin", &big)]);
    let client = client(&server, &cache, None);
    let model = name("hf://o/n");
    let listing = client.list(&model).expect("a listing");
    let local = client.fetch(&model, &listing, &mut |_, _| ()).expect("fetched").remove(0);
    // Through the link, so the blob is cut too.
    std::fs::OpenOptions::new().write(true).open(&local).expect("there").set_len(1000).expect("cut");
    let offline = HubClient::new(Settings { offline: true, ..settings(&server, &cache, None) });
    assert!(matches!(offline.list(&model), Err(HubError::Offline(_))), "without its only file nothing is cached");
    client.fetch(&model, &listing, &mut |_, _| ()).expect("fetched");
    assert_eq!(std::fs::read(&local).expect("read"), big);
    assert_eq!(server.ranges(), ["-", "-"]);
}

#[test]
fn who_waits_for_a_download_that_turns_out_corrupt_fetches_it_anew() {
    let (cache, big) = (Cache::new("waiting"), big());
    let server = HubServer::start(&[("a.bin", &big)]);
    server.state().corrupt = true;
    let (waits, waiting) = std::sync::mpsc::channel();
    let second = client(&server, &cache, None).on_notice(move |notice| {
        assert!(matches!(notice, Notice::OtherProcess { .. }) && notice.to_string().contains("a.bin"), "{notice}");
        waits.send(()).expect("heard");
    });
    let (mut second, mut started) = (Some(second), None);
    let first = client(&server, &cache, None);
    let refused = first.download(&name("hf://datasets/o/n"), COMMIT, &unsized_file("a.bin"), &mut |_| {
        // The first piece has come, so the lock is held, and the corrupt bytes are on their way.
        if let Some(second) = second.take() {
            server.state().corrupt = false;
            started = Some(std::thread::spawn(move || get(&second, "a.bin")));
            waiting.recv().expect("it waits");
        }
    });
    assert!(matches!(refused, Err(HubError::Corrupt { .. })));
    let local = started.expect("started").join().expect("no panic").expect("fetched");
    assert_eq!(std::fs::read(local).expect("read"), big);
}

#[test]
fn a_cache_that_cannot_note_the_version_still_gives_its_files() {
    let cache = Cache::new("unwritable");
    let server = HubServer::start(&[("config.json", b"{}")]);
    // A file where a folder should be: what is below cannot be written by anyone.
    let root = cache.0.join("models--o--n");
    std::fs::create_dir_all(&root).expect("made");
    std::fs::write(root.join("refs"), "").expect("written");
    let (told, notices) = std::sync::mpsc::channel();
    let client = client(&server, &cache, None).on_notice(move |notice| {
        told.send(notice.to_string()).expect("heard");
    });
    let model = name("hf://o/n");
    let listing = client.list(&model).expect("a listing");
    let files = client.fetch(&model, &listing, &mut |_, _| ()).expect("there");
    assert_eq!(std::fs::read(&files[0]).expect("read"), b"{}");
    assert!(notices.try_recv().expect("a notice").contains("refs"));
    // Nor is anything else of ours needed where all files are there.
    std::fs::remove_dir_all(root.join(".corella")).expect("removed");
    std::fs::write(root.join(".corella"), "").expect("written");
    let listing = client.list(&model).expect("a listing");
    client.fetch(&model, &listing, &mut |_, _| ()).expect("there");
}

#[test]
fn waits_are_told() {
    let cache = Cache::new("told");
    let server = HubServer::start(&[("a.bin", b"x")]);
    let (told, notices) = std::sync::mpsc::channel();
    let client = client(&server, &cache, None).on_notice(move |notice| {
        told.send(notice.to_string()).expect("heard");
    });
    server.state().refusals = vec![429];
    get(&client, "a.bin").expect("after a refusal");
    let notice = notices.try_recv().expect("a notice");
    assert!(notice.contains("429") && notice.contains("again in 0 s"), "{notice}");
    assert!(notices.try_recv().is_err());
}

#[test]
fn waits_and_refusals_are_told_apart() {
    let cache = Cache::new("refusals");
    let server = HubServer::start(&[("a.bin", b"x")]);
    let client = client(&server, &cache, None);
    server.state().refusals = vec![408, 503];
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
