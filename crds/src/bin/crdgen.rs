//! Writes the two CRDs as YAML to the folder named by the first argument, and the reference of their fields to the
//! folder named by the second.

use std::path::PathBuf;

use kube::CustomResourceExt;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = |at| std::env::args().nth(at).map(PathBuf::from).ok_or("usage: crdgen CRDS DOCS");
    let (folder, docs) = (folder(1)?, folder(2)?);
    for (file, crd) in [("tenants.yaml", crds::Tenant::crd()), ("logpipelines.yaml", crds::LogPipeline::crd())] {
        std::fs::write(folder.join(file), serde_saphyr::to_string(&crd)?)?;
    }
    std::fs::write(docs.join("reference.md"), crds::reference::page())?;
    Ok(())
}
