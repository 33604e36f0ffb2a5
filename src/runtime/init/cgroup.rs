//! cgroups.

/// Microseconds: the kernel's default.
pub(super) const CPU_PERIOD: u64 = 100_000;

/// Microseconds of processor time in a period.
pub(super) fn quota(nano_cpus: u64) -> u64 {
    nano_cpus.saturating_mul(CPU_PERIOD) / 1_000_000_000
}
