//! References to a platform are platforms: a driver takes one by value, whatever owns it.

use super::{PhysicalRegion, Platform, Wait};

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<P: Platform + ?Sized> Platform for $pointer {
            type Mmio = P::Mmio;
            type IrqState = P::IrqState;

            fn map(&self, region: PhysicalRegion) -> Option<P::Mmio> {
                (**self).map(region)
            }

            fn irq_save(&self) -> P::IrqState {
                (**self).irq_save()
            }

            fn irq_restore(&self, state: P::IrqState) {
                (**self).irq_restore(state);
            }

            fn wait(&self, turn: u32) -> Wait {
                (**self).wait(turn)
            }

            fn relax(&self) {
                (**self).relax();
            }
        }
    )*};
}

forward!(&P);
#[cfg(feature = "alloc")]
forward!(alloc::sync::Arc<P>);
