//! A virtio device's notifications while the guest disables MSI-X.

use super::{Sent, explore_all};
use crate::msix::MsixTable;
use crate::route::Sender;
use crate::sync::{AtomicBool, SeqCst};
use crate::virtio::{NO_VECTOR, Notification, VirtioNotifier};
use msi_types::Level;
use shuttle::sync::atomic::AtomicU32;
use shuttle::{sync::Arc, thread};

/// Notifies while the guest disables MSI-X, and then possibly removes the vector.
fn notify_while_disabling(last: Option<u16>) {
    let sent = alloc::sync::Arc::new(Sent(AtomicU32::new(0)));
    let pin = alloc::sync::Arc::new(AtomicBool::new(false));
    let table = MsixTable::new(1, Sender::Anonymous, sent.clone()).expect("a vector fits");
    table.write(12, &0u32.to_le_bytes());
    let drive = {
        let pin = pin.clone();
        move |level| pin.store(level == Level::High, SeqCst)
    };
    let notifier = VirtioNotifier::new(alloc::sync::Arc::new(table), 1).with_pin(drive);
    notifier.write_capability(3, &[0x80]);
    notifier.write_vector(Notification::UsedBuffer(0), 0);
    let notifier = Arc::new(notifier);
    let device = thread::spawn({
        let notifier = notifier.clone();
        move || notifier.notify(Notification::UsedBuffer(0))
    });
    notifier.write_capability(3, &[0]);
    if let Some(vector) = last {
        notifier.write_vector(Notification::UsedBuffer(0), vector);
    }
    device.join().unwrap();
    let messages = sent.0.load(SeqCst);
    assert_eq!(pin.load(SeqCst), messages == 0, "{messages} messages");
}

#[test]
fn a_notification_during_an_msix_disable_is_sent_or_asserts_the_pin() {
    explore_all(10, || notify_while_disabling(None));
}

#[test]
fn a_notification_during_a_vector_removal_is_sent_or_asserts_the_pin() {
    explore_all(10, || notify_while_disabling(Some(NO_VECTOR)));
}
