//! A virtio disk (virtio 1.2 §5.2) that contains text. It reads and writes its requests without the
//! SMMU, because it does not offer `VIRTIO_F_ACCESS_PLATFORM`; its messages are always translated.

use super::{Memory, Registers, Result, lock};
use std::io::Write;
use std::sync::{Arc, Mutex};
use vgic_monitor::irq_routing::msix::{MsixTable, Signaled};
use vgic_monitor::irq_routing::virtio::{NO_VECTOR, Notification, VirtioNotifier};
use virtio_queue::{DescriptorChain, Queue, QueueT};

const QUEUE: Notification = Notification::UsedBuffer(0);

pub(crate) struct Disk {
    memory: Arc<Memory>,
    queue: Mutex<Queue>,
    /// The guest's writes by offset, except vectors; the state to save.
    pub(crate) registers: Mutex<Registers>,
    pub(crate) notifier: VirtioNotifier,
}

impl Disk {
    pub(crate) fn new(memory: Arc<Memory>, table: Arc<MsixTable>) -> Result<Self> {
        let (queue, registers) = (Mutex::new(Queue::new(16)?), Mutex::default());
        Ok(Self { memory, queue, registers, notifier: VirtioNotifier::new(table, 1) })
    }

    /// Writes a register of the common configuration (virtio §4.1.4.3).
    pub(crate) fn write(&self, offset: u64, value: u64) {
        let Ok(word) = u32::try_from(value) else { return };
        let number = u16::try_from(word).unwrap_or(NO_VECTOR);
        let mut queue = lock(&self.queue);
        match offset {
            0x10 => return self.notifier.write_vector(Notification::ConfigurationChange, number),
            0x14 if word == 0 => {
                self.notifier.reset();
                queue.reset();
                lock(&self.registers).clear();
            }
            0x18 => queue.set_size(number),
            0x1a => return self.notifier.write_vector(QUEUE, number),
            0x1c => queue.set_ready(word == 1),
            0x20 => queue.set_desc_table_address(Some(word), None),
            0x28 => queue.set_avail_ring_address(Some(word), None),
            0x30 => queue.set_used_ring_address(Some(word), None),
            _ => {}
        }
        lock(&self.registers).insert(offset, value);
    }

    /// Serves the oldest request, if there is one. Returns the outcome of its notification.
    pub(crate) fn serve(&self) -> Result<Option<Signaled>> {
        let (memory, mut queue) = (&*self.memory, lock(&self.queue));
        let Some(chain) = queue.pop_descriptor_chain(memory) else { return Ok(None) };
        let head = chain.head_index();
        let report = |error: &_| eprintln!("guest: request of the disk: {error}");
        let written = read(memory, &chain).inspect_err(report).unwrap_or(0);
        queue.add_used(memory, head, written)?;
        Ok(queue.needs_notification(memory)?.then(|| self.notifier.notify(QUEUE)).flatten())
    }

    pub(crate) fn restore(&self, registers: &Registers) -> Result<()> {
        for (offset, value) in registers {
            self.write(*offset, *value);
        }
        let mut queue = lock(&self.queue);
        // Both indices are in guest memory, because `serve` returns once a request is complete.
        let index = queue.used_idx(&*self.memory, std::sync::atomic::Ordering::Relaxed)?.0;
        queue.set_next_used(index);
        queue.set_next_avail(index);
        Ok(())
    }
}

/// Executes a request. Returns the number of bytes that it has written to guest memory.
fn read(memory: &Memory, chain: &DescriptorChain<&Memory>) -> Result<u32> {
    let (mut header, mut data) = (chain.clone().reader(memory)?, chain.clone().writer(memory)?);
    let [kind, _, mut sector, _]: [u32; 4] = header.read_obj()?;
    let is_read = kind == 0; // VIRTIO_BLK_T_IN
    while is_read && data.available_bytes() > 512 {
        let mut text = format!("sector {sector}").into_bytes();
        text.resize(512, 0);
        data.write_all(&text)?;
        sector = sector.wrapping_add(1);
    }
    data.write_obj(if is_read { 0u8 } else { 2 })?; // VIRTIO_BLK_S_UNSUPP
    Ok(u32::try_from(data.bytes_written())?)
}
