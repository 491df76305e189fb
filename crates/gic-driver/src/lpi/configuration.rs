//! Configuration bytes. A byte is changed with its lock held, and is then published to
//! redistributors that don't snoop caches. Neighboring bytes use different locks, because a
//! device's LPIs are consecutive and often target different CPUs.

use super::{LpiError, Lpis};
use crate::{Coherence, GicPlatform};
use core::num::NonZeroU32;
use gic_arch::lpi::{Config, config_offset};
use gic_arch::{Lpi, Priority};

impl<P: GicPlatform> Lpis<P> {
    /// Enables an LPI, keeping its priority, and publishes its configuration. Redistributors may
    /// keep using the old configuration until the sender invalidates it.
    ///
    /// # Errors
    /// [`LpiError::NoSuchLpi`] if the tables do not cover the LPI.
    pub fn enable(&self, lpi: Lpi) -> Result<(), LpiError> {
        self.update_config(lpi, |config| config.with_enable(true))
    }

    /// Disables an LPI, keeping its priority. Otherwise like [`enable`](Self::enable).
    ///
    /// # Errors
    /// [`LpiError::NoSuchLpi`] if the tables do not cover the LPI.
    pub fn disable(&self, lpi: Lpi) -> Result<(), LpiError> {
        self.update_config(lpi, |config| config.with_enable(false))
    }

    /// Sets an LPI's priority (the two low bits are ignored). Otherwise like
    /// [`enable`](Self::enable).
    ///
    /// # Errors
    /// [`LpiError::NoSuchLpi`] if the tables do not cover the LPI.
    pub fn set_priority(&self, lpi: Lpi, priority: Priority) -> Result<(), LpiError> {
        self.update_config(lpi, |config| config.with_priority(priority))
    }

    /// Returns an LPI's configuration as a redistributor would read it now.
    ///
    /// # Errors
    /// [`LpiError::NoSuchLpi`] if the tables do not cover the LPI.
    pub fn config(&self, lpi: Lpi) -> Result<Config, LpiError> {
        self.check(lpi)?;
        // The lock is held, so the byte has also been published.
        let byte = self.config_locks.of(lpi).with(&*self.platform, |()| {
            self.platform.load8(self.config.table(), config_offset(lpi))
        });
        Ok(Config::from(byte))
    }

    /// Returns whether the attached redistributors read the configuration table coherently. The
    /// result is non-coherent if one of the redistributors is, or if none has been attached yet.
    pub fn coherence(&self) -> Coherence {
        self.coherence.get()
    }

    /// Returns a newly allocated LPI's configuration: disabled, with the default priority.
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

    /// Resets LPI configurations. The LPIs must be in the allocator's range.
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

    /// Records whether another redistributor reads the configuration table coherently.
    pub(super) fn note_coherence(&self, found: Coherence) {
        match found {
            Coherence::Coherent => self.coherence.note_coherent(),
            Coherence::NonCoherent => {
                let before = self.coherence.note_non_coherent();
                // A lock holder may still be using the old coherence, so wait for each lock. Stores
                // made before this point are cleaned below, and later stores clean their own bytes.
                self.config_locks.all().for_each(|lock| lock.with(&*self.platform, |()| ()));
                if before == Coherence::Coherent {
                    // Bytes stored until now were only published for coherent redistributors.
                    let table = self.config.table();
                    self.platform.publish(table, 0..table.bytes, Coherence::NonCoherent);
                }
            }
        }
    }
}
