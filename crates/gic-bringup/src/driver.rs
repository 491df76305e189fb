//! Driver types. Each driver is built only if its feature is enabled.

use alloc::sync::Arc;
use core::convert::Infallible;
use core::marker::PhantomData;
use core::ops::Deref;
use gic_driver::{BridgeMsi, DirectLpi, GicV2, Its, Mbi, Mip, V2m};

/// Placeholder for a driver whose feature is disabled. The type has no values, so the compiler
/// removes any code that would use one.
#[derive(Debug)]
pub struct Absent<D>(Infallible, PhantomData<fn() -> D>);

impl<D> Deref for Absent<D> {
    type Target = D;

    fn deref(&self) -> &D {
        match self.0 {}
    }
}

/// Driver for a controller inside a host bridge.
#[cfg(feature = "bridge-msi")]
pub type BridgeMsiDriver<P> = Arc<BridgeMsi<P>>;
/// Driver for a controller inside a host bridge (not part of this build).
#[cfg(not(feature = "bridge-msi"))]
pub type BridgeMsiDriver<P> = Absent<Arc<BridgeMsi<P>>>;

/// Driver for an ITS.
#[cfg(feature = "its")]
pub type ItsDriver<P> = Arc<Its<P>>;
/// Driver for an ITS (not part of this build).
#[cfg(not(feature = "its"))]
pub type ItsDriver<P> = Absent<Arc<Its<P>>>;

/// Driver for direct LPIs.
#[cfg(feature = "direct-lpi")]
pub type DirectLpiDriver<P> = Arc<DirectLpi<P>>;
/// Driver for direct LPIs (not part of this build).
#[cfg(not(feature = "direct-lpi"))]
pub type DirectLpiDriver<P> = Absent<Arc<DirectLpi<P>>>;

/// Driver for message-based SPIs.
#[cfg(feature = "mbi")]
pub type MbiDriver<P> = Arc<Mbi<P>>;
/// Driver for message-based SPIs (not part of this build).
#[cfg(not(feature = "mbi"))]
pub type MbiDriver<P> = Absent<Arc<Mbi<P>>>;

/// Driver for a MIP.
#[cfg(feature = "mip")]
pub type MipDriver<P> = Arc<Mip<P>>;
/// Driver for a MIP (not part of this build).
#[cfg(not(feature = "mip"))]
pub type MipDriver<P> = Absent<Arc<Mip<P>>>;

/// Driver for a GICv2m frame.
#[cfg(feature = "v2m")]
pub type V2mDriver<P> = Arc<V2m<P>>;
/// Driver for a GICv2m frame (not part of this build).
#[cfg(not(feature = "v2m"))]
pub type V2mDriver<P> = Absent<Arc<V2m<P>>>;

/// Driver for a GICv2.
#[cfg(feature = "gicv2")]
pub type GicV2Driver<P> = Arc<GicV2<Arc<P>>>;
/// Driver for a GICv2 (not part of this build).
#[cfg(not(feature = "gicv2"))]
pub type GicV2Driver<P> = Absent<Arc<GicV2<Arc<P>>>>;
