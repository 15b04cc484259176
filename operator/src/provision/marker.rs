//! The owner marker: which installation and which tenant a thing in a store belongs to.

use crds::TenantName;
use serde::{Deserialize, Serialize};

/// Whose a thing is. Ownership goes by installation and tenant; the uid is for information.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Id of the installation.
    pub installation: String,
    /// The tenant.
    pub tenant: TenantName,
    /// `metadata.uid` of the Tenant.
    pub uid: String,
}

/// What a thing's marker says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ownership {
    /// Ours, and the marker is as it should be.
    Ours,
    /// Ours by installation and tenant; the uid is an earlier one's.
    OursBefore,
    /// Somebody else's, or nobody's.
    Foreign {
        /// What the marker says.
        says: String,
    },
}

impl Owner {
    /// Judges a marker. `None` is a thing without one.
    pub fn judge(&self, marker: Option<&str>) -> Ownership {
        let Some(text) = marker else {
            return Ownership::Foreign { says: "it carries no owner marker".to_owned() };
        };
        match serde_json::from_str::<Self>(text) {
            Ok(found) if found == *self => Ownership::Ours,
            Ok(found) if found.installation == self.installation && found.tenant == self.tenant => {
                Ownership::OursBefore
            }
            Ok(found) => Ownership::Foreign {
                says: format!("its owner is tenant `{}` of installation `{}`", found.tenant, found.installation),
            },
            Err(_) => Ownership::Foreign { says: "its owner marker is not one of LoggerHub's".to_owned() },
        }
    }

    /// The marker as text.
    pub fn marker(&self) -> String {
        serde_json::json!({"installation": self.installation, "tenant": self.tenant, "uid": self.uid}).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> Owner {
        Owner { installation: "prod".into(), tenant: "acme".parse().unwrap(), uid: "1".into() }
    }

    #[test]
    fn ownership_goes_by_installation_and_tenant() {
        let ours = acme();
        let before = Owner { uid: "0".into(), ..acme() };
        let elsewhere = Owner { installation: "test".into(), ..acme() };
        let neighbour = Owner { tenant: "globex".parse().unwrap(), ..acme() };
        assert_eq!(ours.judge(Some(&ours.marker())), Ownership::Ours);
        assert_eq!(ours.judge(Some(&before.marker())), Ownership::OursBefore);
        for foreign in [Some(elsewhere.marker()), Some(neighbour.marker()), Some("hello".into()), None] {
            assert!(matches!(ours.judge(foreign.as_deref()), Ownership::Foreign { .. }), "{foreign:?}");
        }
    }
}
