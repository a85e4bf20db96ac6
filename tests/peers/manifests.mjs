// Whether each document of some files is what its kind's published schema wants:
//   node manifests.mjs FOLDER-OF-node_modules FILE…
// The schemas are those of Kubernetes and of Istio. What the sidecars are started with is printed.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [tools, ...files] = process.argv.slice(2);
const from = (path) => import(pathToFileURL(`${tools}/node_modules/${path}`));
const { parseAllDocuments } = await from("yaml/dist/index.js");
for (const file of files) {
  for (const document of parseAllDocuments(readFileSync(file, "utf8"))) {
    if (document.errors.length > 0) throw document.errors[0];
    const manifest = document.toJS();
    const { apiVersion, kind } = manifest;
    const of = apiVersion.includes(".istio.io/") ? "@kubernetes-models/istio" : "kubernetes-models";
    const { [kind]: Model } = await from(`${of}/${apiVersion}/index.js`);
    new Model(manifest).validate();
    console.error(`${file}: ${apiVersion} ${kind}`);
    const pod = manifest.spec?.template?.spec;
    for (const { name, args } of pod?.initContainers ?? []) {
      if (name === "exeat") console.log(JSON.stringify(args));
    }
  }
}
