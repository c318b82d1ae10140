//! Keys with their values, by the thousand: what main.cf sets, and the tables that a resident process keeps.
//!
//! All bytes stand one after another in one piece of memory, and a key is found by its hash. Who writes main.cf or a
//! table chooses the keys, and nobody else: no hash has to stand an attack. Leaves the meaning of both to the reader.

/// The room for entries at first; it doubles. A power of two.
const FIRST_SLOTS: usize = 8;

/// Keys with the last value that each was given.
#[derive(Debug, Default)]
pub struct Dictionary {
    /// Key, value, key, value, in the order of [`Dictionary::insert`].
    text: Vec<u8>,
    entries: Vec<Entry>,
    /// The number of an entry, from 1, in the first free place from where its key's hash points; 0 in free places. At
    /// least half of them are free.
    slots: Vec<usize>,
    keys: usize,
}

/// Where key and value end in the text. They begin where the entry before ends.
#[derive(Debug)]
struct Entry {
    hash: usize,
    key_end: usize,
    end: usize,
}

impl Dictionary {
    /// Gives a key its value, and returns the value that it had before.
    pub fn insert(&mut self, key: &[u8], value: &[u8]) -> Option<&[u8]> {
        if self.slots.len() <= 2 * self.keys {
            self.grow();
        }
        let hash = hash(key);
        let slot = self.slot(hash, key);
        self.text.extend_from_slice(key);
        let key_end = self.text.len();
        self.text.extend_from_slice(value);
        let end = self.text.len();
        self.entries.push(Entry { hash, key_end, end });
        let number = self.entries.len();
        let earlier = std::mem::replace(self.slots.get_mut(slot)?, number);
        if earlier == 0 {
            self.keys += 1;
            return None;
        }
        self.text_of(earlier).map(|(_, value)| value)
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let number = *self.slots.get(self.slot(hash(key), key))?;
        self.text_of(number).map(|(_, value)| value)
    }

    /// All keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let entries = self.slots.iter().filter_map(|&number| self.text_of(number));
        entries.map(|(key, _)| key)
    }

    /// The entry of this number, and the start of its key. Number 0 is no entry.
    fn entry(&self, number: usize) -> Option<(usize, &Entry)> {
        let index = number.checked_sub(1)?;
        let before = index.checked_sub(1).and_then(|at| self.entries.get(at));
        let start = before.map_or(0, |before| before.end);
        Some((start, self.entries.get(index)?))
    }

    /// Key and value of the entry of this number.
    fn text_of(&self, number: usize) -> Option<(&[u8], &[u8])> {
        let (start, entry) = self.entry(number)?;
        let key = self.text.get(start..entry.key_end)?;
        Some((key, self.text.get(entry.key_end..entry.end)?))
    }

    /// The place of a key with this hash, or the free one that it would have.
    fn slot(&self, hash: usize, key: &[u8]) -> usize {
        self.search(hash, |start, entry| {
            entry.hash == hash && self.text.get(start..entry.key_end) == Some(key)
        })
    }

    /// The first slot from the hash on that is free, or has an entry for which `will_do` is true. Any number if there
    /// are no slots.
    fn search(&self, hash: usize, will_do: impl Fn(usize, &Entry) -> bool) -> usize {
        let mask = self.slots.len().wrapping_sub(1);
        let mut slot = hash & mask;
        while let Some((start, entry)) = self.slots.get(slot).and_then(|&n| self.entry(n)) {
            if will_do(start, entry) {
                break;
            }
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        let larger = (2 * self.slots.len()).max(FIRST_SLOTS);
        let numbers = std::mem::replace(&mut self.slots, vec![0; larger]);
        for number in numbers {
            let Some((_, entry)) = self.entry(number) else {
                continue;
            };
            let free = self.search(entry.hash, |_, _| false);
            if let Some(slot) = self.slots.get_mut(free) {
                *slot = number;
            }
        }
    }
}

/// Eight bytes at a time, and then those that are left.
fn hash(key: &[u8]) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(ODD);
    let words = key.chunks_exact(8);
    let rest = words.remainder().iter();
    let hash = words
        .map(|word| word.try_into().map_or(0, u64::from_le_bytes))
        .fold(0, mix);
    let hash = rest.fold(hash, |hash, &byte| mix(hash, u64::from(byte)));
    // The lower bits of a product know nothing of the higher ones of its factors.
    usize::try_from(hash >> 32).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_found_in_nothing() {
        let dictionary = Dictionary::default();
        assert_eq!(dictionary.get(b""), None);
        assert_eq!(dictionary.keys().count(), 0);
    }

    #[test]
    fn it_grows_and_keeps_what_it_has() {
        let key = |n: usize| format!("key{n}").into_bytes();
        for count in [FIRST_SLOTS / 2, FIRST_SLOTS / 2 + 1, 5000] {
            let mut dictionary = Dictionary::default();
            for n in 0..count {
                assert_eq!(dictionary.insert(&key(n), &n.to_le_bytes()), None);
            }
            for n in 0..count {
                assert_eq!(dictionary.get(&key(n)), Some(&n.to_le_bytes()[..]));
            }
            assert_eq!(dictionary.get(&key(count)), None);
            assert!(dictionary.slots.len() >= 2 * count, "{count}");
        }
    }

    proptest! {
        #[test]
        fn it_has_what_an_ordered_map_has(
            entries in proptest::collection::vec(("[ab]{0,3}|[a-z]{0,9}", "[a-z]{0,3}"), 0..300)
        ) {
            let mut dictionary = Dictionary::default();
            let mut expected = BTreeMap::new();
            for (key, value) in &entries {
                let earlier = dictionary.insert(key.as_bytes(), value.as_bytes());
                let before = expected.insert(key.as_bytes(), value.as_bytes());
                prop_assert_eq!(earlier, before);
            }
            let mut keys: Vec<&[u8]> = dictionary.keys().collect();
            keys.sort_unstable();
            prop_assert_eq!(keys, expected.keys().copied().collect::<Vec<_>>());
            for (key, value) in &expected {
                prop_assert_eq!(dictionary.get(key), Some(*value));
            }
            prop_assert_eq!(dictionary.get(b"A"), None);
        }
    }
}
