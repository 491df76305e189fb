//! Configuration bytes. Each is changed under its lock, and published to redistributors that do not
//! snoop caches. Neighbouring bytes have different locks, because a device's LPIs are consecutive
//! and often target one CPU each.

use super::{LpiError, Lpis};
use crate::{Coherence, GicPlatform};
use core::num::NonZeroU32;
use gic_arch::lpi::{Config, config_offset};
use gic_arch::{Lpi, Priority};

impl<P: GicPlatform> Lpis<P> {
    /// Stores an LPI's configuration and publishes it. Redistributors may go on with the old one
    /// until the sender invalidates.
    ///
    /// # Errors
    /// [`LpiError::NoSuchLpi`].
    pub fn set_config(&self, lpi: Lpi, config: Config) -> Result<(), LpiError> {
        self.check(lpi)?;
        self.config_locks.of(lpi).with(&*self.platform, |()| self.store_config(lpi, config));
        Ok(())
    }

    /// Enables an LPI, as [`set_config`](Self::set_config); its priority stays.
    ///
    /// # Errors
    /// [`LpiError::NoSuchLpi`].
    pub fn enable(&self, lpi: Lpi) -> Result<(), LpiError> {
        self.update_config(lpi, |config| config.with_enable(true))
    }

    /// Disables an LPI, as [`set_config`](Self::set_config); its priority stays.
    ///
    /// # Errors
    /// [`LpiError::NoSuchLpi`].
    pub fn disable(&self, lpi: Lpi) -> Result<(), LpiError> {
        self.update_config(lpi, |config| config.with_enable(false))
    }

    /// Sets an LPI's priority, as [`set_config`](Self::set_config). Its two low bits are dropped.
    ///
    /// # Errors
    /// [`LpiError::NoSuchLpi`].
    pub fn set_priority(&self, lpi: Lpi, priority: Priority) -> Result<(), LpiError> {
        self.update_config(lpi, |config| config.with_priority(priority))
    }

    /// An LPI's configuration, as a redistributor reads it now.
    ///
    /// # Errors
    /// [`LpiError::NoSuchLpi`].
    pub fn config(&self, lpi: Lpi) -> Result<Config, LpiError> {
        self.check(lpi)?;
        // Under the lock: what is answered was published as well.
        let byte = self.config_locks.of(lpi).with(&*self.platform, |()| {
            self.platform.load8(self.config.table(), config_offset(lpi))
        });
        Ok(Config::from(byte))
    }

    /// Do all redistributors that were attached look into the CPUs' caches when they read the
    /// configuration table? Non-coherent until the first one is.
    pub fn coherence(&self) -> Coherence {
        self.coherence.get()
    }

    /// The configuration of a new LPI: disabled, at the default priority.
    pub fn initial_config(&self) -> Config {
        Config::new().with_priority(self.priority)
    }

    fn update_config(
        &self,
        lpi: Lpi,
        change: impl FnOnce(Config) -> Config,
    ) -> Result<(), LpiError> {
        self.check(lpi)?;
        self.config_locks.of(lpi).with(&*self.platform, |()| {
            let old = Config::from(self.platform.load8(self.config.table(), config_offset(lpi)));
            self.store_config(lpi, change(old).with_res1(true));
        });
        Ok(())
    }

    fn store_config(&self, lpi: Lpi, config: Config) {
        let offset = config_offset(lpi);
        self.platform.store8(self.config.table(), offset, config.into());
        self.platform.publish(self.config.table(), offset..offset + 1, self.coherence());
    }

    /// The range is one of the allocator's.
    pub(super) fn reset_config(&self, first: Lpi, count: NonZeroU32) {
        let start = config_offset(first);
        let end = start + u64::from(count.get());
        for (offset, lock) in (start..end).zip(self.config_locks.from(first)) {
            lock.with(&*self.platform, |()| {
                self.platform.store8(self.config.table(), offset, self.initial_config().into());
            });
        }
        self.platform.publish(self.config.table(), start..end, self.coherence());
    }

    /// Takes in how one more redistributor reads the configuration table.
    pub(super) fn note_coherence(&self, found: Coherence) {
        match found {
            Coherence::Coherent => self.coherence.note_coherent(),
            Coherence::NonCoherent => {
                let before = self.coherence.note_non_coherent();
                // The holder of a lock may have read the old coherence. The loop waits for it: its
                // store is cleaned below, and later stores clean their own bytes.
                self.config_locks.all().for_each(|lock| lock.with(&*self.platform, |()| ()));
                if before == Coherence::Coherent {
                    // Published so far for the coherent ones alone.
                    let table = self.config.table();
                    self.platform.publish(table, 0..table.bytes, Coherence::NonCoherent);
                }
            }
        }
    }
}
