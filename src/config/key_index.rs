//! Keys by the thousand, and where in a text each stands: the names that main.cf sets, and the keys of tables that a
//! resident process keeps.
//!
//! A key is found by its hash, and the text has it already. Only the administrator chooses keys, in main.cf or in a
//! table: no hash has to withstand an attack. Leaves the text, and what follows a key in it, to the reader.

/// The room for keys at first; it doubles. A power of two.
const FIRST_SLOTS: usize = 8;

/// Keys with the place that each was given last.
#[derive(Debug, Default)]
pub struct KeyIndex {
    /// The hash of a key, in the first free place from where it points.
    hashes: Vec<u32>,
    /// Where the key stands, from 1, in the same place; 0 in free places. At least half of them are free.
    places: Vec<usize>,
    keys: usize,
}

impl KeyIndex {
    /// Gives a key its place, and returns the one that it had before. `has_key` says of a place whether the key stands there.
    pub fn insert(
        &mut self,
        key: &[u8],
        place: usize,
        has_key: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if self.places.len() <= 2 * self.keys {
            self.grow();
        }
        let hash = hash(key);
        let slot = self.slot(hash, has_key);
        *self.hashes.get_mut(slot)? = hash;
        let earlier = std::mem::replace(self.places.get_mut(slot)?, place + 1);
        self.keys += usize::from(earlier == 0);
        earlier.checked_sub(1)
    }

    /// The place of a key.
    pub fn find(&self, key: &[u8], has_key: impl Fn(usize) -> bool) -> Option<usize> {
        let slot = self.slot(hash(key), has_key);
        self.places.get(slot)?.checked_sub(1)
    }

    /// The places of all keys, in no order.
    pub fn places(&self) -> impl Iterator<Item = usize> {
        self.places.iter().filter_map(|place| place.checked_sub(1))
    }

    /// The first slot from where the hash points that is free or has this key. A number without meaning where there are no
    /// slots yet.
    fn slot(&self, hash: u32, has_key: impl Fn(usize) -> bool) -> usize {
        let mask = self.places.len().wrapping_sub(1);
        let mut slot = usize::try_from(hash).unwrap_or_default() & mask;
        while let (Some(own), Some(place)) = (self.hashes.get(slot), self.places.get(slot)) {
            if *place == 0 || *own == hash && has_key(place - 1) {
                break;
            }
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        let larger = (2 * self.places.len()).max(FIRST_SLOTS);
        let hashes = std::mem::replace(&mut self.hashes, vec![0; larger]);
        let places = std::mem::replace(&mut self.places, vec![0; larger]);
        for (hash, place) in hashes.into_iter().zip(places) {
            if place == 0 {
                continue;
            }
            let free = self.slot(hash, |_| false);
            if let (Some(own), Some(empty)) = (self.hashes.get_mut(free), self.places.get_mut(free))
            {
                (*own, *empty) = (hash, place);
            }
        }
    }
}

/// Eight bytes at a time. The last eight may be in part those before them.
fn hash(key: &[u8]) -> u32 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(ODD);
    let hash = match key.last_chunk() {
        None => key.iter().fold(0, |hash, &b| mix(hash, u64::from(b))),
        Some(last) => {
            let (mut hash, mut rest) = (u64::from_le_bytes(*last), key);
            while let Some((word, after)) = rest.split_first_chunk() {
                hash = mix(hash, u64::from_le_bytes(*word));
                rest = after;
            }
            hash
        }
    };
    // The lower bits of a product know nothing of the higher ones of its factors.
    u32::try_from(hash >> 32).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_found_in_nothing() {
        let index = KeyIndex::default();
        assert_eq!(index.find(b"", |_| true), None);
        assert_eq!(index.places().count(), 0);
    }

    #[test]
    fn it_grows_and_keeps_what_it_has() {
        let key = |n: usize| format!("key{n}").into_bytes();
        for count in [FIRST_SLOTS / 2, FIRST_SLOTS / 2 + 1, 5000] {
            let mut index = KeyIndex::default();
            for n in 0..count {
                assert_eq!(index.insert(&key(n), n, |place| place == n), None);
            }
            for n in 0..count {
                assert_eq!(index.find(&key(n), |place| place == n), Some(n));
            }
            assert_eq!(index.find(&key(count), |place| place == count), None);
            assert!(index.places.len() >= 2 * count, "{count}");
        }
    }

    proptest! {
        #[test]
        fn it_has_what_an_ordered_map_has(
            keys in proptest::collection::vec("[ab]{0,3}|[a-z]{0,20}", 0..300)
        ) {
            let mut index = KeyIndex::default();
            let mut expected = BTreeMap::new();
            for (place, key) in keys.iter().enumerate() {
                let earlier = index.insert(key.as_bytes(), place, |place| keys[place] == *key);
                prop_assert_eq!(earlier, expected.insert(key, place));
            }
            let mut places: Vec<usize> = index.places().collect();
            places.sort_unstable();
            let mut all: Vec<usize> = expected.values().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(places, all);
            for (key, place) in &expected {
                prop_assert_eq!(index.find(key.as_bytes(), |place| keys[place] == **key), Some(*place));
            }
            prop_assert_eq!(index.find(b"A", |place| keys[place] == "A"), None);
        }
    }
}
