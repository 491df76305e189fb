//! Hands eventfds over between user space and the kernel while a device signals them.

mod host;

use super::{explore_random, numbered};
use crate::Invalidation;
use crate::kvm::batch::Batch;
use alloc::vec::Vec;
use host::{Eventfd, Host};
use shuttle::sync::Arc;
use shuttle::thread;

/// A device's vector, while threads poll and signal.
struct Scene {
    host: Host,
    batch: Arc<Batch<Host>>,
    key: u64,
    eventfd: Arc<Eventfd>,
}

impl Scene {
    /// Runs `pollers` threads that poll twice, and one that signals through `device`, while
    /// `change` opens and closes the vector. Returns both closures' results when all threads have
    /// ended.
    fn during<D: Send + 'static, C>(
        pollers: usize,
        device: impl FnOnce(&Host, &Eventfd) -> D + Send + 'static,
        change: impl FnOnce(&Host, &Batch<Host>, u64) -> C,
    ) -> (Self, D, C) {
        let host = Host::new();
        let batch = Arc::new(Batch::new(host.clone()));
        let eventfd = Arc::new(Eventfd::default());
        let key = batch.add(eventfd.clone());
        let poll = |_| {
            let (host, batch) = (host.clone(), batch.clone());
            thread::spawn(move || {
                (0..2).for_each(|_| {
                    host.dispatch();
                    host.tick(&batch);
                });
            })
        };
        let threads: Vec<_> = (0..pollers).map(poll).collect();
        let device = thread::spawn({
            let (host, eventfd) = (host.clone(), eventfd.clone());
            move || device(&host, &eventfd)
        });
        let changed = change(&host, &batch, key);
        for thread in threads {
            thread.join().expect("checks in threads do not panic");
        }
        let told = device.join().expect("checks in threads do not panic");
        (Self { host, batch, key, eventfd }, told, changed)
    }

    /// Runs `change` against one poller and one signal.
    fn of_one(change: impl FnOnce(&Host, &Batch<Host>, u64)) -> Self {
        Self::during(1, Host::write, change).0
    }

    /// Opens the vector with `change`, closes it, and asserts that no message is sent afterwards.
    fn closed(
        pollers: usize,
        device: impl FnOnce(&Host, &Eventfd) + Send + 'static,
        change: impl FnOnce(&Batch<Host>, u64),
    ) -> Self {
        let (scene, (), sent) = Self::during(pollers, device, |host, batch, key| {
            change(batch, key);
            batch.close(key);
            host.sent()
        });
        assert_eq!(scene.host.sent(), sent, "a message was sent after the close");
        scene
    }

    /// Asserts that a single signal was sent either before the vector was closed or on reopening.
    fn judge_one_signal(&self) {
        self.open(2);
        self.settle();
        let sent = self.host.sent();
        assert!(sent == [numbered(1)] || sent == [numbered(2)], "{sent:?}");
    }

    fn open(&self, number: u32) {
        self.batch.open(self.key, numbered(number)).expect("it is not blocking");
    }

    /// Polls until there is nothing left to do.
    fn settle(&self) {
        self.host.dispatch();
        while self.host.tick(&self.batch) {}
    }
}

#[test]
fn a_hand_over_sends_each_signal_once() {
    fn scenario() {
        let scene = Scene::of_one(|_, batch, key| {
            batch.open(key, numbered(1)).unwrap();
            batch.hand_over().unwrap();
        });
        scene.settle();
        assert_eq!(scene.host.sent(), [numbered(1)]);

        scene.batch.close(scene.key);
        scene.open(1);
        scene.settle();
        assert_eq!(scene.host.sent(), [numbered(1)], "a signal was sent twice");
        assert_eq!(scene.host.tables(), 1, "the route was already set");
    }
    explore_random(5_000, scenario);
}

#[test]
fn a_signaled_vector_is_handed_over_to_the_kernel() {
    fn scenario() {
        let open = |_: &Host, batch: &Batch<Host>, key| batch.open(key, numbered(1)).unwrap();
        let (scene, ..) = Scene::during(2, Host::write, open);
        scene.settle();
        assert_eq!((scene.host.sent().len(), scene.batch.polled()), (1, 0));

        scene.host.write(&scene.eventfd);
        assert_eq!(scene.host.sent().len(), 2, "the kernel must serve the eventfd");
        // Open enough vectors that opening one more doesn't start a hand-over.
        for _ in 0..2 {
            let key = scene.batch.add(Arc::default());
            scene.batch.open(key, numbered(3)).unwrap();
        }
        scene.batch.hand_over().unwrap();
        scene.open(2);
        scene.settle();
        assert_eq!(scene.batch.polled(), 0, "a vector that rang before must be handed over");
    }
    explore_random(5_000, scenario);
}

#[test]
fn a_closed_vector_sends_nothing() {
    fn scenario() {
        let open = |batch: &Batch<Host>, key| batch.open(key, numbered(1)).unwrap();
        Scene::closed(1, Host::write, open).judge_one_signal();
    }
    explore_random(5_000, scenario);
}

#[test]
fn a_closed_kernel_vector_sends_nothing() {
    fn scenario() {
        let bind = |batch: &Batch<Host>, key| {
            batch.open(key, numbered(1)).unwrap();
            batch.hand_over().unwrap();
        };
        Scene::closed(1, Host::write, bind).judge_one_signal();
    }
    explore_random(5_000, scenario);
}

#[test]
fn two_pollers_send_nothing_after_a_close() {
    fn scenario() {
        let twice = |host: &Host, eventfd: &Eventfd| {
            host.write(eventfd);
            host.write(eventfd);
        };
        let open = |batch: &Batch<Host>, key| {
            batch.open(key, numbered(1)).unwrap();
            thread::yield_now();
        };
        Scene::closed(2, twice, open);
    }
    explore_random(10_000, scenario);
}

#[test]
fn two_pollers_lose_no_signal() {
    fn scenario() {
        let twice = |host: &Host, eventfd: &Eventfd| {
            host.write(eventfd);
            let before = host.sent().len();
            host.write(eventfd);
            before
        };
        let open = |_: &Host, batch: &Batch<Host>, key| batch.open(key, numbered(1)).unwrap();
        let (scene, before, ()) = Scene::during(2, twice, open);
        scene.settle();
        assert!(scene.host.sent().len() > before, "the second signal sent no message");
    }
    explore_random(10_000, scenario);
}

#[test]
fn the_old_message_is_never_sent_after_a_change() {
    fn scenario() {
        let scene = Scene::of_one(|host, batch, key| {
            batch.open(key, numbered(1)).unwrap();
            batch.open(key, numbered(2)).unwrap();
            let sent = host.sent();
            thread::yield_now();
            let later = host.sent();
            assert!(later.iter().skip(sent.len()).all(|message| *message == numbered(2)));
        });
        scene.batch.hand_over().unwrap();
        scene.settle();
        assert_eq!(scene.host.sent().len(), 1);
        scene.batch.remove(scene.key);
    }
    explore_random(5_000, scenario);
}

#[test]
fn user_space_serves_a_blocked_vector() {
    fn scenario() {
        let scene = Scene::of_one(|host, batch, key| {
            batch.open(key, numbered(1)).unwrap();
            batch.hand_over().unwrap();
            host.block(true);
            batch.retranslate(&Invalidation::all());
        });
        scene.settle();
        assert_eq!((scene.host.sent().len(), scene.batch.polled()), (1, 1));
        scene.host.write(&scene.eventfd);
        scene.settle();
        assert_eq!(scene.batch.polled(), 1, "the kernel has no route");

        // The guest maps the page without an invalidation.
        scene.host.block(false);
        scene.host.write(&scene.eventfd);
        scene.settle();
        assert_eq!(scene.batch.polled(), 0, "the kernel must serve the eventfd again");
    }
    explore_random(5_000, scenario);
}

#[test]
fn an_invalidation_retries_a_failed_poll() {
    fn scenario() {
        let scene = Scene::of_one(|host, batch, key| {
            batch.open(key, numbered(1)).unwrap();
            batch.hand_over().unwrap();
            host.block(true);
            for refused in [true, false] {
                host.refuse(refused);
                batch.retranslate(&Invalidation::all());
            }
        });
        scene.settle();
        assert_eq!((scene.host.sent().len(), scene.batch.polled()), (1, 1));
        scene.host.write(&scene.eventfd);
        scene.settle();
        assert_eq!(scene.host.sent().len(), 2, "user space must serve the eventfd");
    }
    explore_random(1_000, scenario);
}

#[test]
fn user_space_serves_a_vector_that_was_blocked_while_closed() {
    fn scenario() {
        let scene = Scene::of_one(|host, batch, key| {
            batch.open(key, numbered(1)).unwrap();
            batch.hand_over().unwrap();
            batch.close(key);
            host.block(true);
            batch.retranslate(&Invalidation::all());
        });
        scene.open(1);
        assert_eq!(scene.batch.polled(), 1, "the kernel has no route");
    }
    explore_random(1_000, scenario);
}
