//! Types of the drivers; each driver is built only with its feature.

use alloc::sync::Arc;
use core::convert::Infallible;
use core::marker::PhantomData;
use core::ops::Deref;
use gic_driver::{DirectLpi, GicV2, Its, Mbi, V2m};

/// A driver in a build without its feature. The type has no values, so the compiler removes code
/// that would use one.
#[derive(Debug)]
pub struct Absent<D>(Infallible, PhantomData<fn() -> D>);

impl<D> Deref for Absent<D> {
    type Target = D;

    fn deref(&self) -> &D {
        match self.0 {}
    }
}

/// The driver of an ITS.
#[cfg(feature = "its")]
pub type ItsDriver<P> = Arc<Its<P>>;
/// The driver of an ITS, which is not part of this build.
#[cfg(not(feature = "its"))]
pub type ItsDriver<P> = Absent<Arc<Its<P>>>;

/// The driver of direct LPIs.
#[cfg(feature = "direct-lpi")]
pub type DirectLpiDriver<P> = Arc<DirectLpi<P>>;
/// The driver of direct LPIs, which is not part of this build.
#[cfg(not(feature = "direct-lpi"))]
pub type DirectLpiDriver<P> = Absent<Arc<DirectLpi<P>>>;

/// The driver of message-based SPIs.
#[cfg(feature = "mbi")]
pub type MbiDriver<P> = Arc<Mbi<P>>;
/// The driver of message-based SPIs, which is not part of this build.
#[cfg(not(feature = "mbi"))]
pub type MbiDriver<P> = Absent<Arc<Mbi<P>>>;

/// The driver of a GICv2m frame.
#[cfg(feature = "v2m")]
pub type V2mDriver<P> = Arc<V2m<P>>;
/// The driver of a GICv2m frame, which is not part of this build.
#[cfg(not(feature = "v2m"))]
pub type V2mDriver<P> = Absent<Arc<V2m<P>>>;

/// The driver of a GICv2.
#[cfg(feature = "gicv2")]
pub type GicV2Driver<P> = Arc<GicV2<Arc<P>>>;
/// The driver of a GICv2, which is not part of this build.
#[cfg(not(feature = "gicv2"))]
pub type GicV2Driver<P> = Absent<Arc<GicV2<Arc<P>>>>;
