use super::*;

impl<T: Object> Table<T> {
    /// Every index tells of the same objects.
    pub fn assert_sound(&self) {
        let walk = |queue: &Queue, is_main: bool| {
            let (mut at, mut newer, mut len, mut bytes) = (queue.newest, NONE, 0, 0);
            while let Some(node) = self.nodes.get(at as usize) {
                assert_eq!((node.newer, node.is_main), (newer, is_main));
                (newer, at) = (at, node.older);
                len += 1;
                bytes += node.bytes;
            }
            assert_eq!((queue.oldest, queue.len, queue.bytes), (newer, len, bytes));
            len
        };
        assert_eq!(walk(&self.small, false) + walk(&self.main, true), self.nodes.len());
        assert_eq!(self.urls.len(), self.nodes.len());
        let variants: usize = self.keys.iter().map(|first| self.variants(*first).count()).sum();
        assert_eq!(variants, self.nodes.len());
        let tags: usize = self.nodes.iter().map(|(_, node)| node.object.tags().len()).sum();
        assert_eq!(self.tags.values().map(|tagged| tagged.len()).sum::<usize>(), tags);
        assert!(self.ghosts.known.len() <= self.ghosts.order.len());
    }
}
