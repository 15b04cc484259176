//! A tenant's share of something bounded, such as bytes in memory.

use crds::TenantName;

/// What tenants hold of it now.
pub(crate) type Shares = runtime::shares::Shares<TenantName>;

/// Whether a tenant that holds `own` of a `total` of which `all` is held may hold `more`: at most half of what the
/// others leave, so that one with huge or slow requests always leaves room, and a second and a third such tenant too.
pub(crate) fn is_fair(total: usize, all: usize, own: usize, more: usize) -> bool {
    let free = total.saturating_sub(all);
    own + more <= (free + own) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_holds_at_most_half_of_what_the_others_leave() {
        for (all, own, more, expected) in [
            (0, 0, 50, true),
            (0, 0, 51, false),
            (40, 40, 10, true),
            (40, 40, 11, false),
            // Another one holds 50: 50 are left, half of them is 25.
            (50, 0, 25, true),
            (50, 0, 26, false),
            (75, 25, 1, false),
            (100, 0, 0, true),
            (100, 0, 1, false),
        ] {
            assert_eq!(is_fair(100, all, own, more), expected, "{all} {own} {more}");
        }
    }
}
