//! Places for connections: so many in all, so many for one address, so that no client alone takes all of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections open at once; more wait in the system's queue.
const MOST: usize = 1024;
/// Connections of one address; more are closed at once. This machine's own are not counted: a proxy brings everybody's.
const MOST_PER_ADDRESS: usize = 256;

type Counts = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// All places of a server.
#[derive(Debug)]
pub struct Places {
    free: Arc<Semaphore>,
    by_address: Counts,
}

/// A place in the whole number, for a connection that is still to come.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// The place of a connection; dropping it makes room.
#[derive(Debug)]
pub struct Taken {
    _place: Place,
    /// Where it is counted, if it is.
    counted: Option<(Counts, IpAddr)>,
}

impl Places {
    /// None is taken.
    pub fn new() -> Places {
        Places { free: Arc::new(Semaphore::new(MOST)), by_address: Counts::default() }
    }

    /// Waits for a place.
    pub async fn next(&self) -> Option<Place> {
        // The semaphore is never closed.
        self.free.clone().acquire_owned().await.ok().map(|permit| Place { _permit: permit })
    }

    /// Gives `place` to a connection from `address`; none if that address has enough.
    pub fn take(&self, place: Place, address: IpAddr) -> Option<Taken> {
        if address.to_canonical().is_loopback() {
            return Some(Taken { _place: place, counted: None });
        }
        let client = client(address);
        let mut counts = lock(&self.by_address);
        let count = counts.entry(client).or_insert(0);
        if *count >= MOST_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Taken { _place: place, counted: Some((self.by_address.clone(), client)) })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let Some((counts, client)) = &self.counted else { return };
        let mut counts = lock(counts);
        if let Some(count) = counts.get_mut(client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(client);
            }
        }
    }
}

fn lock(counts: &Counts) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who stands behind an address: in IPv6 a whole /64 is one network.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_address_leaves_places_for_others_and_gets_its_own_back() {
        let places = Places::new();
        let take = async |address: &str| {
            let place = places.next().await.expect("a place");
            places.take(place, address.parse().expect("an address"))
        };
        let mut all = Vec::new();
        for i in 0..MOST_PER_ADDRESS {
            // The same client, by the addresses of one network and by one address in two forms.
            all.push(take(&format!("2001:db8::{i:x}")).await.expect("room"));
            all.push(take(if i % 2 == 0 { "192.0.2.1" } else { "::ffff:192.0.2.1" }).await.expect("room"));
        }
        assert!(take("2001:db8::ffff").await.is_none() && take("192.0.2.1").await.is_none());
        assert!(take("2001:db8:0:1::1").await.is_some() && take("192.0.2.2").await.is_some());
        all.pop();
        all.pop();
        assert!(take("2001:db8::ffff").await.is_some() && take("192.0.2.1").await.is_some());
        drop(all);
        assert!(lock(&places.by_address).is_empty(), "nobody is remembered");
        assert_eq!(places.free.available_permits(), MOST);
    }

    #[tokio::test]
    async fn this_machine_may_have_all_places() {
        let places = Places::new();
        let mut all = Vec::new();
        for _ in 0..MOST {
            let place = places.next().await.expect("a place");
            all.push(places.take(place, "127.0.0.1".parse().expect("an address")).expect("room"));
        }
        assert_eq!(places.free.available_permits(), 0);
    }
}
