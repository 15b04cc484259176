//! Fail points: the places between two steps where a program for tests may die or stand still.
//!
//! A program names its own with [`crate::fail_points!`]. Only a debug build, or one with the feature
//! `failpoints`, can be told to; in what is shipped, reaching a point does nothing. A point does to
//! its process what a power cut or a debugger does: it neither unwinds nor flushes anything.

/// Names the points of a program: an enum `Point`; `reach`, which says that the process is at one; and, in a
/// build that can be told to, `order`, which reads what to do there.
#[macro_export]
macro_rules! fail_points {
    ($($(#[$doc:meta])+ $point:ident = $name:literal,)+) => {
        /// A place between two steps.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Point {
            $($(#[$doc])+ $point,)+
        }

        impl Point {
            /// All of them.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$point),+];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)+
                }
            }
        }

        /// Says that the process is at `point`.
        #[inline]
        pub fn reach(point: Point) {
            $crate::fail_points::reach(point.name());
        }

        $crate::fail_point_order!();

        #[cfg(test)]
        #[test]
        fn every_point_has_a_name_of_its_own() {
            let names: std::collections::HashSet<_> = Point::ALL.iter().map(|point| point.name()).collect();
            assert_eq!(names.len(), Point::ALL.len());
        }
    };
}

/// Part of [`crate::fail_points!`]: whether there are orders is this crate's build to say.
#[doc(hidden)]
#[cfg(any(debug_assertions, feature = "failpoints"))]
#[macro_export]
macro_rules! fail_point_order {
    () => {
        /// Reads an order to die or to stand still at one of them.
        pub fn order(text: &str) -> Result<$crate::fail_points::Order, String> {
            $crate::fail_points::Order::parse(text, Point::ALL.iter().map(|point| point.name()))
        }
    };
}

/// Part of [`crate::fail_points!`]: nothing in what is shipped.
#[doc(hidden)]
#[cfg(not(any(debug_assertions, feature = "failpoints")))]
#[macro_export]
macro_rules! fail_point_order {
    () => {};
}

/// Says that the process is at the point of that name.
#[cfg(not(any(debug_assertions, feature = "failpoints")))]
#[inline]
pub fn reach(_point: &'static str) {}

#[cfg(any(debug_assertions, feature = "failpoints"))]
pub use armed::{Order, arm, reach};

#[cfg(any(debug_assertions, feature = "failpoints"))]
mod armed {
    use std::process::{self, Command};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::Duration;

    /// What to do where: `POINT=kill@N` or `POINT=stop@N`, at the Nth time that the point is reached.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Order {
        point: &'static str,
        action: Action,
        at: u32,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Action {
        /// Die, as by SIGKILL.
        Kill,
        /// Stand still until SIGCONT.
        Stop,
    }

    static ORDER: OnceLock<Order> = OnceLock::new();
    static REACHED: AtomicU32 = AtomicU32::new(0);

    impl Order {
        /// Reads an order about one of these points.
        pub fn parse(text: &str, mut points: impl Iterator<Item = &'static str>) -> Result<Self, String> {
            let wrong = || format!("`{text}` is not POINT=kill@N or POINT=stop@N");
            let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
            let (action, at) = rest.split_once('@').ok_or_else(wrong)?;
            let point = points.find(|point| *point == name).ok_or_else(wrong)?;
            let action = match action {
                "kill" => Action::Kill,
                "stop" => Action::Stop,
                _ => return Err(wrong()),
            };
            Ok(Self { point, action, at: at.parse().map_err(|_| wrong())? })
        }
    }

    /// Gives the process its order; only the first counts.
    pub fn arm(order: Order) {
        ORDER.get_or_init(|| order);
    }

    /// Says that the process is at the point of that name.
    pub fn reach(point: &'static str) {
        let Some(order) = ORDER.get().filter(|order| order.point == point) else { return };
        if REACHED.fetch_add(1, Ordering::SeqCst) + 1 != order.at {
            return;
        }
        match order.action {
            Action::Kill => process::abort(),
            Action::Stop => stand_still(),
        }
    }

    /// Stops the whole process, this thread first of all.
    fn stand_still() {
        let sent = Command::new("kill").args(["-STOP", &process::id().to_string()]).status();
        if !sent.is_ok_and(|status| status.success()) {
            process::abort();
        }
        // The signal may take a moment; the step after this one must not happen before it.
        thread::sleep(Duration::from_millis(200));
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn an_order_names_a_point_an_action_and_a_time() {
            let order = |text| Order::parse(text, ["a.first", "a.second"].into_iter());
            assert_eq!(order("a.second=stop@3"), Ok(Order { point: "a.second", action: Action::Stop, at: 3 }));
            for wrong in ["", "a.first", "a.first=stop", "nowhere=kill@1", "a.first=kill@x", "a.first=hop@1"] {
                assert!(order(wrong).is_err(), "{wrong}");
            }
        }
    }
}

#[cfg(test)]
#[allow(unreachable_pub, reason = "the macro is meant for a public room")]
mod tests {
    fail_points! {
        /// One.
        First = "a.first",
        /// And another.
        Second = "a.second",
    }

    #[test]
    fn points_are_listed_by_name_and_nobody_is_told_to_die() {
        let names: Vec<_> = Point::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names, ["a.first", "a.second"]);
        assert!(order("a.second=kill@1").is_ok() && order("a.third=kill@1").is_err());
        reach(Point::Second);
    }
}
