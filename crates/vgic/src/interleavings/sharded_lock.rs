//! Scenario for the lock of the command state.

use super::explore_all;
use crate::sync::lock::ShardedLock;
use alloc::sync::Arc;
use shuttle::thread;

/// A thread reads by one of two shards while another thread writes. Only the first shard holds a
/// reference before.
fn a_shard_is_read_during_a_write(shard: usize) {
    let lock = Arc::new(ShardedLock::<_, 2>::new([0; 2]).unwrap());
    drop(lock.read(0));
    let reader = {
        let lock = lock.clone();
        thread::spawn(move || {
            let read = lock.read(shard);
            let first = read[0];
            thread::yield_now();
            assert_eq!(read[1], first, "a part of a write");
        })
    };
    lock.write(|value| *value = [1; 2]);
    reader.join().unwrap();
    assert_eq!(*lock.read(shard), [1; 2]);
}

#[test]
fn a_write_excludes_readers_of_all_shards() {
    explore_all(10, || a_shard_is_read_during_a_write(0));
    explore_all(10, || a_shard_is_read_during_a_write(1));
}
