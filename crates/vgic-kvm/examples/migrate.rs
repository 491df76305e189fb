//! Converts a machine to KVM's format and back. `registers` and guest memory contain what a save by
//! KVM would produce.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use vgic::{GuestMemory, MemoryFault, Vcpu, Vgic};
use vgic_kvm::{KvmView, kvm_config, kvm_its_config};

/// Guest memory, starting at address 0.
struct Ram(Mutex<Vec<u8>>);

impl Ram {
    fn with<R>(
        &self,
        address: u64,
        length: usize,
        act: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<R, MemoryFault> {
        let mut ram = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = usize::try_from(address).map_err(|_| MemoryFault { address })?;
        let part = ram.get_mut(start..).and_then(|rest| rest.get_mut(..length));
        part.map(act).ok_or(MemoryFault { address })
    }
}

impl GuestMemory for Ram {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryFault> {
        self.with(address, bytes.len(), |part| bytes.copy_from_slice(part))
    }
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MemoryFault> {
        self.with(address, bytes.len(), |part| part.copy_from_slice(bytes))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let config = kvm_config(2, 96).with_its(vec![kvm_its_config(0x0808_0000)]);
    let memory = Arc::new(Ram(Mutex::new(vec![0; 1 << 20])));
    let (gic, mut vcpus) = Vgic::new(config.clone(), memory.clone(), Arc::new(|_| ()))?;
    let _paused: Vec<_> = vcpus.iter_mut().map(Vcpu::pause).collect();

    let mut view = KvmView::new(&config, gic.save()?, &*memory)?;
    let registers = view.save()?;
    println!("{} registers; {}", registers.len(), view.left_out());

    let mut view = KvmView::new(&config, gic.save()?, &*memory)?;
    view.load(&registers)?;
    println!("restored; {}", view.left_out());
    gic.restore(&view.into_state())?;
    Ok(())
}
