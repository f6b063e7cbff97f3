//! What the cache is good for when the hub cannot be reached.

use corella_hub::{HubClient, HubError, Settings};

use super::hub_server::{COMMIT, HubServer};
use super::{Cache, client, name, settings};

const FILES: [(&str, &[u8]); 3] =
    [("config.json", b"{}"), ("model.safetensors", b"weights"), ("tokenizer_config.json", b"[]")];

/// A client that no server answers.
fn alone(server: &HubServer, cache: &Cache) -> HubClient {
    HubClient::new(Settings { endpoint: "http://127.0.0.1:1".to_owned(), ..settings(server, cache, None) })
}

/// A client that is told not to ask.
fn offline(server: &HubServer, cache: &Cache) -> HubClient {
    HubClient::new(Settings { offline: true, ..settings(server, cache, None) })
}

/// The paths of a listing.
fn paths(listing: &corella_hub::Listing) -> Vec<&str> {
    listing.files.iter().map(|f| &f.path[..]).collect()
}

#[test]
fn a_model_in_the_cache_needs_no_network() {
    let (cache, model) = (Cache::new("unreachable"), name("hf://o/n"));
    let server = HubServer::start(&FILES);
    let online = client(&server, &cache, None);
    online.fetch(&model, &online.list(&model).expect("a listing"), &mut |_, _| ()).expect("fetched");
    let kept = alone(&server, &cache).list(&model).expect("the cache's");
    assert_eq!((&kept.commit[..], kept.unreachable.is_some()), (COMMIT, true));
    assert_eq!(paths(&kept), FILES.map(|(path, _)| path));
    alone(&server, &cache).fetch(&model, &kept, &mut |_, _| ()).expect("cached");
    // A hub that cannot answer now is asked once; one that says no is believed.
    server.state().refusals = vec![503];
    server.state().seen.clear();
    assert!(online.list(&model).expect("the cache's").unreachable.is_some());
    assert_eq!(server.state().seen.len(), 1);
    server.state().refusals = vec![401];
    assert!(matches!(online.list(&model), Err(HubError::Unauthorized { .. })));
    assert!(online.list(&model).expect("the hub's").unreachable.is_none());
}

#[test]
fn a_half_fetched_model_is_not_taken_for_the_whole() {
    let cache = Cache::new("half");
    let server = HubServer::start(&FILES);
    let online = client(&server, &cache, None);
    // Of a data set, too, a part would be taken for all of it.
    for repository in ["hf://o/n", "hf://datasets/o/n"].map(name) {
        let listing = online.list(&repository).expect("a listing");
        for file in &listing.files[..2] {
            online.download(&repository, COMMIT, file, &mut |_| ()).expect("fetched");
        }
        let refused = offline(&server, &cache).list(&repository).expect_err("one file is missing");
        assert!(matches!(refused, HubError::Incomplete { have: 2, of: 3, source: None, .. }), "{refused}");
        assert!(refused.to_string().contains("only 2 of the 3 files") && refused.hint().is_some(), "{refused}");
        let refused = alone(&server, &cache).list(&repository).expect_err("one file is missing");
        assert!(matches!(refused, HubError::Incomplete { source: Some(_), .. }), "{refused}");
        assert!(refused.to_string().contains("the hub cannot be reached"), "{refused}");
        // What passes is waited for, as if nothing were cached.
        server.state().refusals = vec![503, 429];
        let listing = online.list(&repository).expect("the third try");
        assert_eq!((listing.unreachable.is_none(), listing.files.len()), (true, 3));
        // What is there is enough for who wants no more.
        let one = offline(&server, &cache).list(&name(&format!("{repository}/config.json"))).expect("it is cached");
        assert_eq!(paths(&one), ["config.json"]);
        online.fetch(&repository, &listing, &mut |_, _| ()).expect("fetched");
        assert_eq!(offline(&server, &cache).list(&repository).expect("whole").files.len(), 3);
    }
}

#[test]
fn what_nobody_wants_need_not_be_cached() {
    let (cache, data) = (Cache::new("wanted"), name("hf://datasets/o/n"));
    let server = HubServer::start(&FILES);
    let wanted = |file: &corella_hub::RemoteFile| file.path.ends_with(".json");
    let online = client(&server, &cache, None);
    let listing = online.list_wanted(&data, wanted).expect("a listing");
    assert_eq!(paths(&listing), ["config.json", "tokenizer_config.json"]);
    online.fetch(&data, &listing, &mut |_, _| ()).expect("fetched");
    for client in [offline(&server, &cache), alone(&server, &cache)] {
        assert_eq!(client.list_wanted(&data, wanted).expect("whole").files, listing.files);
        assert!(matches!(client.list(&data), Err(HubError::Incomplete { have: 2, of: 3, .. })));
    }
}

#[test]
fn the_last_whole_version_stays_until_the_next_is_whole() {
    let (cache, model, next) = (Cache::new("versions"), name("hf://o/n"), "f".repeat(40));
    let server = HubServer::start(&FILES);
    let online = client(&server, &cache, None);
    online.fetch(&model, &online.list(&model).expect("a listing"), &mut |_, _| ()).expect("fetched");
    server.state().commit = next.clone();
    server.state().files.push(("z.json".to_owned(), b"new".to_vec()));
    let listing = online.list(&model).expect("a listing");
    online.download(&model, &next, &listing.files[0], &mut |_| ()).expect("fetched");
    assert_eq!(offline(&server, &cache).list(&model).expect("the old one").commit, COMMIT);
    assert_eq!(alone(&server, &cache).list(&model).expect("the old one").commit, COMMIT);
    online.fetch(&model, &listing, &mut |_, _| ()).expect("fetched");
    assert_eq!(offline(&server, &cache).list(&model).expect("the new one").commit, next);
}

#[test]
fn what_huggingface_hub_fetched_is_used_as_it_lies_there() {
    let cache = Cache::new("theirs");
    let server = HubServer::start(&FILES);
    for kind in ["models", "datasets"] {
        let root = cache.0.join(format!("{kind}--o--n"));
        let snapshot = root.join("snapshots").join(COMMIT);
        std::fs::create_dir_all(&snapshot).expect("made");
        std::fs::create_dir_all(root.join("refs")).expect("made");
        std::fs::write(root.join("refs/main"), COMMIT).expect("written");
        std::fs::write(snapshot.join("config.json"), "{}").expect("written");
    }
    for repository in ["hf://o/n", "hf://datasets/o/n"].map(name) {
        assert_eq!(paths(&offline(&server, &cache).list(&repository).expect("cached")), ["config.json"]);
        let missing = name(&format!("{repository}/model.safetensors"));
        assert!(matches!(offline(&server, &cache).list(&missing), Err(HubError::Offline(_))));
    }
    assert!(alone(&server, &cache).list(&name("hf://o/n")).expect("the cache's").unreachable.is_some());
    // A part of a data set would be taken for all of it.
    let refused = alone(&server, &cache).list(&name("hf://datasets/o/n"));
    assert!(matches!(refused, Err(HubError::Transport { .. })), "{refused:?}");
}
