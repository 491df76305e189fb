//! A route in Linux's KVM, on x86: the example signals a GSI, and the kernel sends the message that
//! the GSI is routed to.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use irq_routing::kvm::{KvmConfig, KvmRouter, RustVmm};
    use irq_routing::{Change, Route, RoutedMessage, Routing, Sender};
    use msi_types::MsiMessage;
    use std::sync::Arc;

    let kvm = match kvm_ioctls::Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => {
            println!("/dev/kvm cannot be used here: {error}");
            return Ok(());
        }
    };
    let vm = Arc::new(kvm.create_vm()?);
    vm.create_irq_chip()?;
    let _vcpu = vm.create_vcpu(0)?;
    let router = KvmRouter::new(RustVmm(vm), KvmConfig::new(24))?; // the I/O APIC has pins 0 to 23

    let gsi = router.allocate()?;
    let message = MsiMessage { address: 0xfee0_0000, data: 0x41 };
    let route = RoutedMessage { sender: Sender::Anonymous, message };
    router.commit(&[Change::Set(gsi, Route::Message(route))])?;
    // Blocked: the guest has not enabled its local APIC yet.
    println!("GSI {gsi} is routed to vector {:#x}: {:?}", message.data, router.signal(gsi)?);
    Ok(())
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    println!("this example is for x86 under Linux");
}
