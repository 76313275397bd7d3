//! A map that forgets what was not looked at for the longest time.

use std::collections::HashMap;
use std::hash::Hash;

/// A map in two generations: when the young one is half the capacity, the old one is dropped and the young one takes its
/// place. What is looked at becomes young again. Never scans, never holds more than the capacity.
pub(super) struct Generations<K, V> {
    young: HashMap<K, V, foldhash::quality::RandomState>,
    old: HashMap<K, V, foldhash::quality::RandomState>,
    half: usize,
}

impl<K: Copy + Eq + Hash, V> Generations<K, V> {
    /// Empty; it takes no memory before something is put in.
    pub(super) fn new(capacity: usize) -> Self {
        Generations { young: HashMap::default(), old: HashMap::default(), half: (capacity / 2).max(1) }
    }

    /// What is there, made young again.
    pub(super) fn get(&mut self, key: &K) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let value = self.old.remove(key)?;
            self.put(*key, value);
        }
        self.young.get_mut(key)
    }

    /// Puts a value in, in place of another one.
    pub(super) fn put(&mut self, key: K, value: V) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// Removes everything and gives its memory back.
    pub(super) fn clear(&mut self) {
        (self.young, self.old) = (HashMap::default(), HashMap::default());
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_what_is_used_stays() {
        let mut map = Generations::new(100);
        for number in 0..1000 {
            map.put(number, number * 2);
            assert_eq!(map.get(&0), Some(&mut 0), "in use");
            assert!(map.len() <= 100);
        }
        assert_eq!(map.get(&1), None, "pushed out");
        assert_eq!(map.get(&999), Some(&mut 1998));
        map.put(999, 1);
        assert_eq!(map.get(&999), Some(&mut 1));
        map.clear();
        assert_eq!((map.len(), map.get(&0)), (0, None));
    }
}
