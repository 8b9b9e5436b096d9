#!/bin/sh
# What cronjob.yaml runs at each tick: create a RayJob from the template, the RayCronJob named $1, under the tick's name.
#
# JOB_NAME and JOB_UID are the Kubernetes Job's of the tick. Its name ends with the minute that the tick was due, so
# the RayJob has the same name however often a tick is tried, and is created once. The name is the build's too: an
# attempt after midnight goes on with the build of the day before. The Job owns the RayJob, which goes when the
# CronJob's history limits let its tick go.
set -eu

minute=${JOB_NAME##*-}
case $minute in
  *[!0-9]*) name=$JOB_NAME ;;                     # kubectl create job --from=cronjob/magpie-nightly NAME
  *) name=${JOB_NAME%-*}-$(date -u -d "@$((minute * 60))" +%Y%m%d-%H%M) ;;
esac

if kubectl get rayjob "$name" --output name; then
  echo "$name is there already"
  exit 0
fi
asked() { kubectl get raycronjob "$template" --output "jsonpath=$1"; }
template=$1
spec=$(asked '{.spec.jobTemplate}')               # JSON, as labels are
labels=$(asked '{.metadata.labels}')
entrypoint=$(asked '{.spec.jobTemplate.entrypoint}')
rayjob="
apiVersion: ray.io/v1
kind: RayJob
metadata:
  name: $name
  labels: $labels
  ownerReferences: [{apiVersion: batch/v1, kind: Job, name: \"$JOB_NAME\", uid: \"$JOB_UID\"}]
spec: $spec
"
named="
spec:
  entrypoint: |-
    $entrypoint output.build_id=$name
"
printf '%s' "$rayjob" | kubectl patch --local --filename - --type merge --patch "$named" --output yaml |
  kubectl create --filename -
