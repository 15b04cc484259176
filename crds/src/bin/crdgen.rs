//! Writes the two CRDs as YAML to the folder named by the first argument.

use std::path::PathBuf;

use kube::CustomResourceExt;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: crdgen FOLDER")?);
    for (file, crd) in [("tenants.yaml", crds::Tenant::crd()), ("logpipelines.yaml", crds::LogPipeline::crd())] {
        std::fs::write(folder.join(file), serde_saphyr::to_string(&crd)?)?;
    }
    Ok(())
}
