"""What validation reports and the best checkpoint is chosen by."""

from extensions.chamfer_dist import ChamferDistanceL1, ChamferDistanceL2, both_ways

LOWER_IS_BETTER = {"F-Score": False, "CDL1": True, "CDL2": True}


class Metrics:
    def __init__(self, metric_name, values):
        if metric_name not in LOWER_IS_BETTER:
            raise KeyError(f"consider_metric: {metric_name} is none of {list(LOWER_IS_BETTER)}")
        self.metric_name = metric_name
        self.values = dict(values)

    @staticmethod
    def names():
        return list(LOWER_IS_BETTER)

    @staticmethod
    def get(pred, gt, threshold=0.01):
        near_pred, near_gt = both_ways(pred, gt)
        precision = (near_pred < threshold**2).float().mean()
        recall = (near_gt < threshold**2).float().mean()
        f_score = 2 * precision * recall / (precision + recall).clamp_min(1e-12)
        return [f_score, ChamferDistanceL1()(pred, gt) * 1000, ChamferDistanceL2()(pred, gt) * 1000]

    def better_than(self, other):
        if other is None:
            return True
        mine, theirs = self.values[self.metric_name], other.values[self.metric_name]
        return mine < theirs if LOWER_IS_BETTER[self.metric_name] else mine > theirs

    def state_dict(self):
        return dict(self.values)
