"""launch/gke/run.sh: the JobSet that it applies. Stand-ins record how programs are called."""

import pytest
import yaml

from helpers.launch import RUN, WORDS


def test_gke_run_makes_a_job_for_each_slice_and_a_pod_for_each_machine(stand):
    words = (*WORDS["launch/gke/run.sh"], "--slices=2", '--config.data.template=a "b" \\ & c')
    assert stand.script("launch/gke/run.sh", *words).returncode == 0
    (record,) = stand.records
    assert record["words"] == ["kubectl", "apply", "--filename=-"]
    found = yaml.safe_load(record["input"])
    assert "${" not in record["input"].partition("apiVersion")[2]
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert found["metadata"]["name"] == "run"
    assert found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "multislice-queue"
    topology = "alpha.jobset.sigs.k8s.io/exclusive-topology"
    assert found["metadata"]["annotations"] == {topology: "cloud.google.com/gke-nodepool"}
    (job,) = found["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert (job["replicas"], spec["parallelism"], spec["completions"], spec["backoffLimit"]) == (2, 16, 16, 0)
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never", "which a podFailurePolicy demands"
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "8x8",
    }
    (container,) = pod["containers"]
    assert container["resources"] == {"limits": {"google.com/tpu": 4}}
    assert container["image"] == "eu/repo/nft:1"
    assert container["command"] == ["python", "-m", "nft_jax.train"]
    assert container["args"] == [*RUN, words[-1]]
    given = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert given == {"JAX_PLATFORMS": "tpu,cpu", "NFT_JAX_DISTRIBUTED": "auto", "HF_TOKEN": None}


def test_gke_run_starts_again_after_75_and_after_a_lost_node_without_counting(stand):
    assert stand.script("launch/gke/run.sh", *WORDS["launch/gke/run.sh"]).returncode == 0
    spec = yaml.safe_load(stand.records[0]["input"])["spec"]
    (rule,) = spec["failurePolicy"]["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("RestartJobSetAndIgnoreMaxRestarts", ["PodFailurePolicy"])
    assert spec["failurePolicy"]["maxRestarts"] == 3
    job = spec["replicatedJobs"][0]["template"]["spec"]
    after_code, after_loss = job["podFailurePolicy"]["rules"]
    (container,) = job["template"]["spec"]["containers"]
    assert after_code["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [75]}
    assert after_loss["onPodConditions"] == [{"type": "DisruptionTarget"}]
    assert {rule["action"] for rule in (after_code, after_loss)} == {"FailJob"}


@pytest.mark.parametrize(("topology", "chips", "hosts"), [("2x2", 4, 1), ("4x4x4", 4, 16), ("2x4", 8, 1)])
def test_gke_run_computes_hosts_from_the_topology(stand, topology, chips, hosts):
    words = [word for word in WORDS["launch/gke/run.sh"] if "topology" not in word]
    assert stand.script("launch/gke/run.sh", *words, f"--topology={topology}", f"--chips={chips}").returncode == 0
    job = yaml.safe_load(stand.records[0]["input"])["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert job["parallelism"] == hosts


def test_gke_run_refuses_topologies_that_machines_do_not_divide(stand):
    for word in ("--topology=3x1", "--topology=8 x 8"):
        words = [given for given in WORDS["launch/gke/run.sh"] if "topology" not in given]
        ran = stand.script("launch/gke/run.sh", *words, word)
        assert (ran.returncode, stand.calls) == (2, [])
